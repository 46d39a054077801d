"""What transformers' own Trainer asks of a model: accumulation, label smoothing, evaluation, several processes."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification


class Rows(torch.utils.data.Dataset):
    """Rows of tokens with some labels left out, so that micro-batches count different numbers of labels."""

    def __init__(self, sequence_labels=False, count=8):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 64, (count, 12), generator=generator)
        keep = torch.rand(self.ids.shape, generator=generator) < torch.linspace(0.2, 1, count)[:, None]
        self.labels = self.ids.masked_fill(~keep, -100)
        if sequence_labels:
            self.labels = torch.randint(0, 2, (count,), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.labels[index]}


def train(model, dataset, folder, **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        **{"max_steps": 1, **options},
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=dataset, eval_dataset=dataset)
    trainer.train()
    return trainer


def language_model():
    torch.manual_seed(0)
    return HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64, output_projection_init="normal"))


def discriminator():
    torch.manual_seed(0)
    config = HfGptConfig.preset("nano", vocab_size=64, num_labels=1, output_projection_init="normal")
    return HfGptForSequenceClassification(config)


@pytest.mark.parametrize(("build", "sequence_labels"), [(language_model, False), (discriminator, True)])
def test_one_of_eight_equals_eight_of_one(tmp_path, build, sequence_labels):
    dataset = Rows(sequence_labels)
    weights = []
    for size in (8, 1):
        model = build()
        train(model, dataset, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        weights.append([p.detach().clone() for p in model.parameters()])
    torch.testing.assert_close(weights[1], weights[0], rtol=0.0, atol=1e-6)


def test_label_smoothing_shifts_the_labels(tmp_path):
    model, dataset = language_model(), Rows()
    batch = {"input_ids": dataset.ids, "labels": dataset.labels}
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", label_smoothing_factor=0.1)
    trainer = Trainer(model=model, args=arguments)
    actual = trainer.compute_loss(model, dict(batch))
    log_probabilities = model(dataset.ids).logits[:, :-1].log_softmax(-1)
    labels = dataset.labels[:, 1:]
    valid = labels != -100
    nll = -log_probabilities.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)[valid].mean()
    uniform = -log_probabilities.mean(-1)[valid].mean()
    torch.testing.assert_close(actual, 0.9 * nll + 0.1 * uniform, rtol=0.0, atol=1e-5)


def test_trainer_evaluates_and_predicts(tmp_path):
    trainer = train(language_model(), Rows(), tmp_path, per_device_eval_batch_size=3)
    metrics = trainer.evaluate()
    prediction = trainer.predict(Rows())
    assert prediction.predictions.shape == (8, 12, 64)
    assert metrics["eval_loss"] == pytest.approx(prediction.metrics["test_loss"], abs=1e-5)
