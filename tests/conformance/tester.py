"""Turns a spec into a test class of the archive's mixins."""

import types
import unittest
from typing import Any

import torch

from conformance import mixins, pipelines
from conformance.checkout.test_modeling_common import ids_tensor
from conformance.heads import HeadChecks
from conformance.specs import SIZES, Spec


MIXINS = (
    mixins.ModelTesterMixin,
    mixins.PipelineTesterMixin,
    mixins.TrainingTesterMixin,
    mixins.TensorParallelTesterMixin,
    mixins.FSDPTesterMixin,
)


class SpecTester(mixins.CausalLMModelTester):
    """Answers every question of the mixins from the spec's configuration."""

    spec: Spec
    seq2seq_lm_class: Any = None

    def __init__(self, parent: Any) -> None:
        config = self.spec.build_config()
        super().__init__(parent, **{name: getattr(config, name, size) for name, size in SIZES.items()})
        self.head_dim = getattr(config, "head_dim", None)
        self.num_labels = config.num_labels

    @classmethod
    def _verify_and_infer_model_attributes(cls) -> None:
        """Overrides a full checkout's check, which guesses the other classes from the library's module layout."""

    def get_config(self) -> Any:
        return self.spec.build_config()


class Seq2SeqSpecTester(SpecTester):
    """The same for an encoder-decoder, with a batch of sources and targets."""

    @property
    def all_model_classes(self) -> list[type]:
        classes = (self.base_model_class, self.seq2seq_lm_class, self.sequence_classification_class)
        return [model_class for model_class in classes if model_class is not None]

    @property
    def pipeline_model_mapping(self) -> dict[str, type]:
        tasks = {"text-classification": self.sequence_classification_class}
        return {task: model_class for task, model_class in tasks.items() if model_class is not None}

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        config, inputs = super().prepare_config_and_inputs_for_common()
        target = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        inputs |= {"decoder_input_ids": target, "decoder_attention_mask": torch.ones_like(target).tril()}
        return config, inputs


class SpecOverrides(pipelines.LocalPipelines):
    """What differs from a test class inside the library."""

    spec: Spec
    # Our parameters are all set by `_init_weights`, whatever year the licence header names.
    test_can_init_all_missing_weights_before_2023 = True

    def _prepare_for_class(self, inputs_dict: dict, model_class: type, return_labels: bool = False) -> dict:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        # The mixin labels every classifier with class ids; one label is a regression target and wants floats.
        one_label = self.spec.options.get("num_labels") == 1
        if return_labels and one_label and model_class is self.model_tester.sequence_classification_class:
            inputs["labels"] = inputs["labels"].to(torch.float)
        return inputs


def make_test_class(spec: Spec, module: str) -> type[unittest.TestCase]:
    """The test class of one spec, named after it."""
    mixins.allow_distributed_tests(spec.config_class.model_type)
    if spec.is_encoder_decoder:
        tester_bases, mixins_of_spec = (Seq2SeqSpecTester,), tuple(m for m in MIXINS if m is not mixins.FSDPTesterMixin)
    else:
        tester_bases, mixins_of_spec = (SpecTester,), MIXINS
    tester = type(
        f"{spec.title}Tester", tester_bases, {"spec": spec, "config_class": spec.config_class, **spec.classes}
    )
    # A class that cannot generate must not inherit the generation tests: the archive has a test that says so.
    common = (mixins.CausalLMModelTest,) if "causal_lm_class" in spec.heads else (HeadChecks,)
    if spec.is_encoder_decoder:
        common = (*common, mixins.GenerationTesterMixin)
    missing = tuple(mixin for mixin in mixins_of_spec if not issubclass(common[0], mixin))
    bases = (SpecOverrides, *common, *missing, unittest.TestCase)
    arguments = {name: value for name, value in spec.sizes.items() if name not in spec.options} | spec.options
    body = {
        "__module__": module,
        "spec": spec,
        "has_attentions": spec.has_attentions and spec.prefix != "HfLstm",
        "model_tester_class": tester,
        "all_model_classes": None,
        "pipeline_model_mapping": None,
        "is_encoder_decoder": spec.is_encoder_decoder,
        # `num_labels` is the checks' own argument, and the library completes `rope_parameters` by itself.
        "config_arguments": {k: v for k, v in arguments.items() if k not in ("num_labels", "rope_parameters")},
        "_torch_compile_train_cls": spec.classes["causal_lm_class"] or spec.classes["seq2seq_lm_class"],
    }
    if spec.prefix == "HfLstm":
        body["config_arguments"]["common_properties"] = ["hidden_size", "num_hidden_layers"]
    return types.new_class(spec.title, bases, exec_body=lambda namespace: namespace.update(body))
