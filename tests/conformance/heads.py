"""Checks of the configuration and of every head, beside those of the archive's mixins."""

import tempfile
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from conformance.checkout.test_configuration_common import ConfigTester
from conformance.checkout.test_modeling_common import ids_tensor


NUM_LABELS = 3


class HeadChecks:
    """Needs `model_tester_class`; makes the tester before each test."""

    model_tester_class: type
    all_model_classes: Any = None
    pipeline_model_mapping: Any = None
    config_arguments: dict[str, Any] = {}

    def setUp(self) -> None:
        self.model_tester: Any = self.model_tester_class(self)
        self.config_tester = ConfigTester(self, config_class=self.model_tester.config_class, **self.config_arguments)
        if self.all_model_classes is None:
            self.all_model_classes = self.model_tester.all_model_classes
        if self.pipeline_model_mapping is None:
            self.pipeline_model_mapping = self.model_tester.pipeline_model_mapping

    def _run_head(self, head: str, labels_shape: Any = None, dtype: torch.dtype = torch.long, **options: Any) -> Any:
        """Output of one head for a batch whose mask hides one token id, with labels when a shape is given."""
        model_class = getattr(self.model_tester, head)
        if model_class is None:
            self.skipTest(f"No {head}")
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config.num_labels = NUM_LABELS
        for name, value in options.items():
            setattr(config, name, value)
        inputs["attention_mask"] = inputs["input_ids"].ne(1).long()
        if labels_shape is not None:
            inputs["labels"] = ids_tensor(labels_shape, 2).to(dtype)
        with torch.no_grad():
            output = model_class(config).eval()(**inputs)
        if labels_shape is not None:
            self.assertEqual(output.loss.shape, ())
            self.assertTrue(torch.isfinite(output.loss))
        return output

    @property
    def _batch(self) -> tuple[int, int]:
        return self.model_tester.batch_size, self.model_tester.seq_length

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def test_model(self) -> None:
        output = self._run_head("base_model_class")
        self.assertEqual(output.last_hidden_state.shape, (*self._batch, self.model_tester.hidden_size))

    def test_sequence_classification_model(self) -> None:
        output = self._run_head("sequence_classification_class", self._batch[:1])
        self.assertEqual(output.logits.shape, (self._batch[0], NUM_LABELS))

    def test_sequence_classification_model_for_single_label(self) -> None:
        output = self._run_head(
            "sequence_classification_class", self._batch[:1], problem_type="single_label_classification"
        )
        self.assertEqual(output.logits.shape, (self._batch[0], NUM_LABELS))

    def test_sequence_classification_model_for_multi_label(self) -> None:
        output = self._run_head(
            "sequence_classification_class",
            (self._batch[0], NUM_LABELS),
            torch.float,
            problem_type="multi_label_classification",
        )
        self.assertEqual(output.logits.shape, (self._batch[0], NUM_LABELS))

    def test_token_classification_model(self) -> None:
        output = self._run_head("token_classification_class", self._batch)
        self.assertEqual(output.logits.shape, (*self._batch, NUM_LABELS))

    def test_question_answering_model(self) -> None:
        output = self._run_head("question_answering_class")
        self.assertEqual(output.start_logits.shape, self._batch)
        self.assertEqual(output.end_logits.shape, self._batch)

    def test_causal_lm_can_accept_training_kwargs(self) -> None:
        if self.model_tester.causal_lm_class is None:
            self.skipTest("No causal_lm_class")
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        inputs["labels"] = inputs["input_ids"]
        with tempfile.TemporaryDirectory() as folder:
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            model = AutoModelForCausalLM.from_pretrained(folder).eval()
        mean = model(**inputs).loss
        per_item = model(**inputs, num_items_in_batch=torch.tensor(inputs["labels"].numel())).loss
        positions = inputs["labels"][:, 1:].numel()
        torch.testing.assert_close(per_item * inputs["labels"].numel(), mean * positions)
