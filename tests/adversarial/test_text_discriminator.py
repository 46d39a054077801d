"""A discriminator with a tokenizer of its own: training, guidance, saving, and what it cannot do."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
)

from hf_gpt import AdversarialConfig, AdversarialTrainer, guided_generate, make_discriminator, train_discriminator
from hf_gpt.errors import ConfigError
from hf_gpt.generation.scoring.discriminator import sequence_scores
from hf_gpt.generation.scoring.texts import TextDiscriminator


@pytest.fixture
def texts(corpus_text):
    return [line for line in corpus_text.splitlines() if len(line) > 20][:60]


@pytest.fixture
def discriminator(encoder, make_model, tokenizer):
    torch.manual_seed(0)
    return make_discriminator(str(encoder), make_model(), processing_class=tokenizer).eval()


def trainer_of(model, discriminator, tokenizer, texts, folder, **options):
    settings = {
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "max_new_tokens": 12,
        "mle_warmup_steps": 1,
        "discriminator_warmup_steps": 1,
        "warmup_steps": 0,
        "gate_auc": 0.0,
        "save_strategy": "steps",
        "save_steps": 3,
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = AdversarialConfig(output_dir=str(folder), **{**settings, **options})
    return AdversarialTrainer(model, discriminator, args=args, train_dataset=texts, processing_class=tokenizer)


def test_it_scores_what_its_own_tokenizer_reads(discriminator, encoder, tokenizer, texts):
    assert isinstance(discriminator, TextDiscriminator)
    own = AutoTokenizer.from_pretrained(encoder)
    rows = [[tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts[:5]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    encoded = own(texts[:5], padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        expected = discriminator.discriminator(**encoded).logits[:, 0]
    torch.testing.assert_close(sequence_scores(discriminator, ids, mask), expected)
    # Padding at the left is the same text.
    left, left_mask = ids.flip(1), mask.flip(1)
    pairs = zip(left, left_mask, strict=True)
    left = torch.stack([torch.cat([row[kept == 0], row[kept == 1].flip(0)]) for row, kept in pairs])
    torch.testing.assert_close(sequence_scores(discriminator, left, left_mask), expected)


def test_training_changes_it_and_what_is_saved_is_a_plain_checkpoint(
    discriminator, make_model, tokenizer, texts, tmp_path
):
    before = discriminator.discriminator.classifier.weight.clone()
    result = train_discriminator(
        make_model(), discriminator, texts, processing_class=tokenizer, max_new_tokens=12, epochs=3
    )
    assert 0 <= result.auc <= 1 and not torch.equal(before, discriminator.discriminator.classifier.weight)
    discriminator.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, BertForSequenceClassification) and loaded.config.num_labels == 1
    again = make_discriminator(str(tmp_path / "saved"), make_model(), processing_class=tokenizer).eval()
    ids = tokenizer(texts[:3], padding=True, return_tensors="pt")
    scores = [sequence_scores(model, ids["input_ids"], ids["attention_mask"]) for model in (discriminator, again)]
    torch.testing.assert_close(*scores)


def test_adversarial_training_saves_and_resumes_it(discriminator, encoder, make_model, tokenizer, texts, tmp_path):
    first = trainer_of(make_model(), discriminator, tokenizer, texts, tmp_path / "run")
    first.train()
    counts = first.update_counts()
    assert counts["generator_updates"] == 2 and counts["discriminator_updates"] > 1
    fresh = make_discriminator(str(encoder), make_model(), processing_class=tokenizer)
    second = trainer_of(make_model(), fresh, tokenizer, texts, tmp_path / "run")
    second.discriminator_trainer.load(tmp_path / "run" / "checkpoint-3")
    states = [trainer.discriminator.state_dict() for trainer in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "checkpoint-3" / "discriminator")
    assert saved.get_vocab() == AutoTokenizer.from_pretrained(encoder).get_vocab()


def test_an_adapter_goes_to_the_model_inside(discriminator, make_model, tokenizer, texts, tmp_path):
    from peft import LoraConfig

    args = AdversarialConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=8, max_new_tokens=8, report_to="none"
    )
    adapter = LoraConfig(r=2, target_modules=["query"])
    trainer = AdversarialTrainer(
        make_model(),
        discriminator,
        args=args,
        train_dataset=texts,
        processing_class=tokenizer,
        discriminator_peft_config=adapter,
    )
    assert hasattr(trainer.discriminator.discriminator, "peft_config")
    trainer.discriminator_trainer.prepare(2)
    trainer.discriminator_trainer.save(tmp_path, tokenizer, is_main=True)
    assert (tmp_path / "discriminator" / "adapter_model.safetensors").is_file()
    trainer.discriminator_trainer.load(tmp_path)


def test_whole_text_guidance_works_and_prefixes_are_refused(discriminator, make_model, tokenizer):
    model, prompt = make_model(), tokenizer("First", return_tensors="pt")
    options = {"do_sample": True, "max_new_tokens": 6, "custom_generate": guided_generate}
    for guidance in ("resample", "reject", "best_of_n"):
        sequences = model.generate(**prompt, **options, discriminator=discriminator, guidance=guidance)
        assert sequences.shape[1] > prompt["input_ids"].shape[1]
    with pytest.raises(ValueError, match="prefix"):
        model.generate(**prompt, **options, discriminator=discriminator, guidance="particles")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_level": "prefix"}, "does not score every prefix"),
        ({"gradient_penalty_weight": 10.0, "discriminator_loss": "wasserstein"}, "inputs_embeds"),
    ],
)
def test_losses_that_need_tokens_are_refused(discriminator, make_model, tokenizer, texts, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        trainer_of(make_model(), discriminator, tokenizer, texts, tmp_path, **options)


def test_a_model_with_several_labels_or_none_at_all_is_refused(encoder, make_model, tokenizer, tmp_path):
    labelled = BertForSequenceClassification.from_pretrained(encoder, num_labels=3)
    labelled.save_pretrained(tmp_path / "three")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "three")
    for path in (tmp_path / "three", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="there is no discriminator"):
            make_discriminator(str(path), make_model(), processing_class=tokenizer)


def test_the_generators_own_tokenizer_needs_no_text(make_model, tokenizer, tmp_path):
    saved = make_discriminator("ngram_cnn", make_model())
    saved.save_pretrained(tmp_path / "own")
    tokenizer.save_pretrained(tmp_path / "own")
    found = make_discriminator(str(tmp_path / "own"), make_model(), processing_class=tokenizer)
    assert type(found) is type(saved)
