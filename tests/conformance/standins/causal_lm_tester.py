"""Stands in for the tester of decoders: a tiny configuration, a batch for it, and all mixins in one class."""

from typing import Any

import torch
from conformance.heads import HeadChecks

from .generation.test_utils import GenerationTesterMixin
from .test_fsdp_mixin import FSDPTesterMixin
from .test_modeling_common import ModelTesterMixin, ids_tensor
from .test_pipeline_mixin import PipelineTesterMixin
from .test_tensor_parallel_mixin import TensorParallelTesterMixin
from .test_training_mixin import TrainingTesterMixin


TASKS = {
    "feature-extraction": "base_model_class",
    "text-generation": "causal_lm_class",
    "text-classification": "sequence_classification_class",
    "zero-shot": "sequence_classification_class",
    "token-classification": "token_classification_class",
}


class CausalLMModelTester:
    """Holds sizes and model classes; subclasses name the classes and build the configuration."""

    config_class: Any = None
    base_model_class: Any = None
    causal_lm_class: Any = None
    question_answering_class: Any = None
    sequence_classification_class: Any = None
    token_classification_class: Any = None

    def __init__(self, parent: Any, batch_size: int = 13, seq_length: int = 7, **sizes: Any) -> None:
        self.parent = parent
        self.batch_size = batch_size
        self.seq_length = seq_length
        self.is_training = True
        for name, value in sizes.items():
            setattr(self, name, value)

    @property
    def all_model_classes(self) -> list[type]:
        classes = (
            self.base_model_class,
            self.causal_lm_class,
            self.question_answering_class,
            self.sequence_classification_class,
            self.token_classification_class,
        )
        return [model_class for model_class in classes if model_class is not None]

    @property
    def pipeline_model_mapping(self) -> dict[str, type]:
        return {task: getattr(self, head) for task, head in TASKS.items() if getattr(self, head) is not None}

    def get_config(self) -> Any:
        raise NotImplementedError

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        input_ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        # Rows of every length up to the batch's, so that padding is always part of the test.
        mask = torch.ones_like(input_ids).tril()
        return self.get_config(), {"input_ids": input_ids, "attention_mask": mask}


class CausalLMModelTest(
    HeadChecks,
    ModelTesterMixin,
    GenerationTesterMixin,
    PipelineTesterMixin,
    TrainingTesterMixin,
    TensorParallelTesterMixin,
    FSDPTesterMixin,
):
    """Everything that a decoder with a language-model head can be tested on."""

    all_model_classes = None
    pipeline_model_mapping = None
