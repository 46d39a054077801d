"""What each text pipeline must return for a tiny model with random weights."""

import unittest
from typing import Any

from transformers import PreTrainedModel, pipeline


TEXTS = ["the cat sat on the mat", "a dog"]
case = unittest.TestCase()


class NoCheck:
    """A task that none of our heads serves."""

    def get_test_pipeline(self, *args: Any, **kwargs: Any) -> tuple[None, list]:
        return None, []


class TaskCheck:
    """Builds the pipeline of `task`; subclasses say what it must return."""

    task: str

    def get_test_pipeline(
        self, model: PreTrainedModel, tokenizer: Any = None, dtype: str = "float32", **processors: Any
    ) -> tuple[Any, list[str]]:
        return pipeline(self.task, model=model, tokenizer=tokenizer, dtype=dtype), TEXTS

    def run_pipeline_test(self, pipe: Any, examples: list[str]) -> None:
        raise NotImplementedError


class FeatureExtraction(TaskCheck):
    task = "feature-extraction"

    def run_pipeline_test(self, pipe: Any, examples: list[str]) -> None:
        features = pipe(examples[0])
        case.assertEqual(len(features), 1)
        case.assertEqual({len(token) for token in features[0]}, {pipe.model.config.hidden_size})
        case.assertEqual(len(pipe(examples)), len(examples))


class TextGeneration(TaskCheck):
    task = "text-generation"

    def run_pipeline_test(self, pipe: Any, examples: list[str]) -> None:
        prompt = examples[0]
        whole = pipe(prompt, do_sample=False, max_new_tokens=4)[0]["generated_text"]
        new = pipe(prompt, do_sample=False, max_new_tokens=4, return_full_text=False)[0]["generated_text"]
        case.assertEqual(whole, prompt + new)
        samples = pipe(prompt, do_sample=True, num_return_sequences=2, max_new_tokens=4)
        case.assertEqual(len(samples), 2)
        case.assertEqual(len(pipe(examples, max_new_tokens=2, batch_size=2)), len(examples))


class TextClassification(TaskCheck):
    task = "text-classification"

    def run_pipeline_test(self, pipe: Any, examples: list[str]) -> None:
        names = set(pipe.model.config.id2label.values())
        case.assertIn(pipe(examples[0])[0]["label"], names)
        every = pipe(examples, top_k=None)
        case.assertEqual([{score["label"] for score in scores} for scores in every], [names] * len(examples))
        for scores in every:
            case.assertTrue(all(0.0 <= score["score"] <= 1.0 for score in scores))


class TokenClassification(TaskCheck):
    task = "token-classification"

    def run_pipeline_test(self, pipe: Any, examples: list[str]) -> None:
        names = set(pipe.model.config.id2label.values())
        for entity in pipe(examples[0], ignore_labels=[]):
            case.assertIn(entity["entity"], names)
            case.assertEqual(examples[0][entity["start"] : entity["end"]].strip(), entity["word"].strip("Ġ "))
        case.assertEqual(len(pipe(examples, aggregation_strategy="simple")), len(examples))


class ZeroShot(TaskCheck):
    task = "zero-shot-classification"
    labels = ("sport", "music", "food")

    def get_test_pipeline(
        self, model: PreTrainedModel, tokenizer: Any = None, dtype: str = "float32", **processors: Any
    ) -> tuple[Any, list[str]]:
        model.config.label2id = {"contradiction": 0, "neutral": 1, "entailment": 2}
        # Bound here because the archive's check of batches calls the pipeline with texts alone.
        labels = list(self.labels)
        return pipeline(self.task, model=model, tokenizer=tokenizer, dtype=dtype, candidate_labels=labels), TEXTS

    def run_pipeline_test(self, pipe: Any, examples: list[str]) -> None:
        answer = pipe(examples[0])
        case.assertEqual(set(answer["labels"]), set(self.labels))
        case.assertAlmostEqual(sum(answer["scores"]), 1.0, places=2)
        case.assertEqual(answer["scores"], sorted(answer["scores"], reverse=True))


CHECKS: dict[str, type] = {
    "FeatureExtractionPipelineTests": FeatureExtraction,
    "TextGenerationPipelineTests": TextGeneration,
    "TextClassificationPipelineTests": TextClassification,
    "TokenClassificationPipelineTests": TokenClassification,
    "ZeroShotClassificationPipelineTests": ZeroShot,
}
