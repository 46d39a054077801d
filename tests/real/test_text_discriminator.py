"""MiniLM, a pretrained encoder with a tokenizer of its own, as the discriminator of small generators."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from hf_gpt import AdversarialConfig, AdversarialTrainer, guided_generate, make_discriminator, train_discriminator
from hf_gpt.generation.scoring.discriminator import sequence_scores
from hf_gpt.generation.scoring.texts import TextDiscriminator, encode_texts


pytestmark = pytest.mark.real


@pytest.fixture
def generator(make_model, tokenizer):
    return make_model(max_position_embeddings=64).eval()


@pytest.fixture
def texts(corpus_text):
    lines = [line for line in corpus_text.splitlines() if len(line) > 20]
    return lines[:60]


def test_training_scoring_and_saving(minilm, generator, tokenizer, texts, tmp_path):
    torch.manual_seed(0)
    discriminator = make_discriminator(str(minilm), generator, processing_class=tokenizer)
    assert isinstance(discriminator, TextDiscriminator)
    assert isinstance(discriminator.discriminator, BertForSequenceClassification)
    result = train_discriminator(
        generator, discriminator, texts, processing_class=tokenizer, max_new_tokens=24, epochs=2, batch_size=16
    )
    # An untrained generator writes noise, which an encoder that knows English tells at once.
    assert result.auc > 0.95
    ids, mask, _ = encode_texts(tokenizer, texts[:4])
    scores = sequence_scores(discriminator, ids, mask)
    discriminator.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    own = AutoTokenizer.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        expected = loaded(**own(texts[:4], padding=True, return_tensors="pt")).logits[:, 0]
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    prompt = tokenizer("First", return_tensors="pt")
    options = {"do_sample": True, "max_new_tokens": 8, "custom_generate": guided_generate}
    assert generator.generate(**prompt, **options, discriminator=discriminator).shape[0] == 1


def test_adversarial_training_and_resuming(minilm, generator, tokenizer, texts, tmp_path):
    def trainer(steps):
        torch.manual_seed(0)
        args = AdversarialConfig(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=8,
            max_new_tokens=12,
            mle_warmup_steps=1,
            discriminator_warmup_steps=1,
            warmup_steps=0,
            discriminator_learning_rate=1e-4,
            gate_auc=0.0,
            save_steps=3,
            save_strategy="steps",
            report_to="none",
            disable_tqdm=True,
        )
        discriminator = make_discriminator(str(minilm), generator, processing_class=tokenizer)
        return AdversarialTrainer(generator, discriminator, args=args, train_dataset=texts, processing_class=tokenizer)

    first = trainer(3)
    first.train()
    assert first.update_counts()["generator_updates"] == 2 and first.update_counts()["discriminator_updates"] > 1
    trained = {name: tensor.clone() for name, tensor in first.discriminator.state_dict().items()}
    second = trainer(3)
    second.discriminator_trainer.load(tmp_path / "checkpoint-3")
    assert all(torch.equal(tensor, trained[name]) for name, tensor in second.discriminator.state_dict().items())
    saved = AutoTokenizer.from_pretrained(tmp_path / "checkpoint-3" / "discriminator")
    assert len(saved) == len(AutoTokenizer.from_pretrained(minilm))
