"""Tiny models and a tokenizer for the pipeline tests, in place of the Hub's."""

import functools
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, set_seed

from conformance.checkout import test_pipeline_mixin
from conformance.specs import Spec


SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
CORPUS = ["the cat sat on the mat", "a dog ran after the cat", "this example is about food, music and sport"]


@functools.cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE, small enough to train on the spot."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **SPECIAL)


@functools.cache
def make_models(name: str) -> tuple[tempfile.TemporaryDirectory, dict[str, dict[str, Any]]]:
    """Every head of a spec saved with the tokenizer, laid out and summarised as the mixin expects."""
    from conformance.specs import BY_NAME

    spec: Spec = BY_NAME[name]
    folder = tempfile.TemporaryDirectory()
    tokenizer = make_tokenizer()
    summary = {}
    for model_class in filter(None, spec.classes.values()):
        config = spec.build_config(
            vocab_size=len(tokenizer),
            num_labels=spec.options.get("num_labels", 3),
            **{f"{kind}_id": getattr(tokenizer, f"{kind}_id") for kind in SPECIAL},
        )
        set_seed(0)
        path = Path(folder.name) / config.model_type / model_class.__name__
        model_class(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
        summary[model_class.__name__] = {
            "tokenizer_classes": [type(tokenizer).__name__],
            "processor_classes": [],
            "model_classes": [model_class.__name__],
        }
    return folder, summary


class LocalPipelines:
    """Points the pipeline tests at the models of `self.spec`."""

    spec: Spec

    def run_task_tests(self, task: str, *args: Any, **kwargs: Any) -> None:
        if task not in self.pipeline_model_mapping:
            self.skipTest(f"none of our heads serves the {task} pipeline")
        folder, summary = make_models(self.spec.name)
        with mock.patch.multiple(
            test_pipeline_mixin, TRANSFORMERS_TINY_MODEL_PATH=folder.name, tiny_model_summary=summary
        ):
            super().run_task_tests(task, *args, **kwargs)
