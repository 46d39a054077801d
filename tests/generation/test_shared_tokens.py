"""A discriminator reads a generator's token ids: both mean the same tokens by them, or it is refused by name."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.adversarial.trainer import AdversarialTrainer  # noqa: F401 - registers the models
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.generation.guidance.guided_generate import guided_generate
from hf_gpt.generation.guidance.log_weights import make_log_weight
from hf_gpt.generation.scoring.discriminator import prefix_scores, sequence_scores
from hf_gpt.generation.scoring.log_ratio import LogRatio, log_ratio
from hf_gpt.generation.scoring.shared_tokens import TokensError, check_shared_tokens, tokenizer_difference
from tests.sampling_options import grow_particles, rollout


TEXTS = ["the cat sat on the mat and the dog ran", "a dog and a cat sat", "rain on the plain"] * 20
OTHER = ["zebra zoo quiz jazz buzz fizz", "quick jumping wizards vex"] * 20


@pytest.fixture(scope="module")
def tokenizers():
    return train_tokenizer(TEXTS, 280), train_tokenizer(OTHER, 280)


def make_generator(size=300, **settings):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    return HfGptForCausalLM(HfGptConfig(vocab_size=size, **sizes, **settings)).eval()


def make_discriminator(size=300, kind="hf_gpt"):
    if kind == "bert":
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = BertConfig(vocab_size=size, max_position_embeddings=64, num_labels=1, **sizes)
        return BertForSequenceClassification(config).eval()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = AutoConfig.for_model(kind, vocab_size=size, num_labels=1, **sizes)
    return AutoModelForSequenceClassification.from_config(config).eval()


def every_use(generator, discriminator):
    """Each way in which a critic guides or judges a generator in Python."""
    prompts = torch.tensor([[5, 6]])
    samples = {
        "do_sample": True,
        "max_new_tokens": 3,
        "custom_generate": guided_generate,
        "discriminator": discriminator,
    }
    yield lambda: generator.generate(prompts, guidance="best_of_n", pad_token_id=0, **samples)
    yield lambda: generator.generate(prompts, guidance="stepwise", pad_token_id=0, **samples)
    yield lambda: grow_particles(
        generator, discriminator, (prompts, torch.ones_like(prompts)), max_new_tokens=3, num_particles=2
    )
    yield lambda: make_log_weight(discriminator, generator)


@pytest.mark.parametrize("size", [100, 1200])
@pytest.mark.parametrize("kind", ["hf_gpt", "bert"])
def test_another_number_of_tokens_is_refused_before_work(size, kind):
    for use in every_use(make_generator(), make_discriminator(size, kind)):
        with pytest.raises(TokensError, match=r"writes 300 tokens, the discriminator .*" + f"{size:,}"):
            use()


@pytest.mark.parametrize("size", [100, 1200])
def test_another_language_model_is_refused(size):
    generator, psi = make_generator(), make_generator(size)
    texts = rollout(generator, torch.tensor([[5, 6]]), max_new_tokens=3)
    for use in (
        *every_use(generator, psi),
        lambda: log_ratio(psi, generator, texts),
        lambda: LogRatio(psi, generator, 2),
    ):
        with pytest.raises(TokensError, match="one tokenizer"):
            use()


def test_as_many_tokens_of_another_vocabulary_are_refused(tokenizers, tmp_path):
    mine, theirs = tokenizers
    assert len(mine) == len(theirs)
    generator, discriminator = make_generator(), make_discriminator()
    check_shared_tokens(generator, discriminator)
    with pytest.raises(TokensError, match=r"HfGptForSequenceClassification has another tokenizer .* has the id"):
        check_shared_tokens(generator, discriminator, mine, theirs)
    # And as they are found where the models were saved.
    for name, model, tokenizer in (("generator", generator, mine), ("discriminator", discriminator, theirs)):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    generator = HfGptForCausalLM.from_pretrained(tmp_path / "generator")
    discriminator = type(discriminator).from_pretrained(tmp_path / "discriminator")
    for use in every_use(generator, discriminator):
        with pytest.raises(TokensError, match="discriminator"):
            use()
    check_shared_tokens(generator, discriminator, discriminator_tokenizer=mine)


def test_padding_of_embeddings_is_accepted(tokenizers):
    tokenizer = tokenizers[0]
    size = len(tokenizer)
    for written, read in ((size, 384), (384, size), (size, size)):
        check_shared_tokens(make_generator(written), make_discriminator(read), tokenizer, tokenizer)
    # Without tokenizers only padding of the discriminator is plain.
    check_shared_tokens(make_generator(size), make_discriminator(384))
    with pytest.raises(TokensError, match="no embedding"):
        check_shared_tokens(make_generator(384), make_discriminator(size))
    with pytest.raises(TokensError, match="no embedding"):
        check_shared_tokens(make_generator(384), make_discriminator(size - 1), tokenizer, tokenizer)


def test_what_makes_tokenizers_differ(tokenizers):
    from tokenizers import normalizers

    mine = tokenizers[0]
    again = train_tokenizer(TEXTS, 280)
    assert tokenizer_difference(mine, again) is None
    again.eos_token, again.pad_token = "t", "a"
    assert "eos_token_id" in tokenizer_difference(mine, again)
    lower = train_tokenizer(TEXTS, 280)
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "normaliser" in tokenizer_difference(mine, lower)


@pytest.mark.parametrize("score", [sequence_scores, prefix_scores])
def test_an_id_without_an_embedding_is_named(score):
    discriminator = make_discriminator(50)
    with pytest.raises(ValueError, match="token 70, but the discriminator HfGptForSequenceClassification reads 50"):
        score(discriminator, torch.tensor([[3, 70, 4]]))
    # Padding may be any id.
    mask = torch.tensor([[1, 0, 1]])
    assert score(discriminator, torch.tensor([[3, 70, 4]]), mask).isfinite().all()


def test_a_copy_of_a_trunk_goes_along_with_new_tokens(tokenizers, tmp_path):
    """Tokens that were added since the generator was saved are those of a discriminator made of it, too."""
    from hf_gpt.adversarial.discriminator.model import discriminator_from_generator

    tokenizer = tokenizers[0]
    make_generator(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    generator = HfGptForCausalLM.from_pretrained(tmp_path)
    longer = type(tokenizer).from_pretrained(tmp_path)
    longer.add_tokens(["<new>"])
    generator.resize_token_embeddings(len(longer))
    check_shared_tokens(generator, discriminator_from_generator(generator), longer)
    # Embeddings that have been cut or have grown since are not those of the saved tokenizer.
    discriminator = make_discriminator(len(tokenizer))
    discriminator.save_pretrained(tmp_path / "discriminator")
    tokenizers[1].save_pretrained(tmp_path / "discriminator")
    discriminator = type(discriminator).from_pretrained(tmp_path / "discriminator")
    with pytest.raises(TokensError, match="another tokenizer"):
        check_shared_tokens(None, discriminator, tokenizer)
    discriminator.resize_token_embeddings(2000)
    check_shared_tokens(make_generator(2000), discriminator)


def test_tokenizers_of_saved_models_are_compared_once(tokenizers, tmp_path, monkeypatch):
    from hf_gpt.generation.scoring import shared_tokens

    generator, discriminator = make_generator(), make_discriminator()
    for name, model in (("generator", generator), ("discriminator", discriminator)):
        model.save_pretrained(tmp_path / name)
        tokenizers[0].save_pretrained(tmp_path / name)
    generator = HfGptForCausalLM.from_pretrained(tmp_path / "generator")
    discriminator = type(discriminator).from_pretrained(tmp_path / "discriminator")
    calls = []
    monkeypatch.setattr(shared_tokens, "tokenizer_difference", lambda *pair: calls.append(pair))
    for _ in range(3):
        check_shared_tokens(generator, discriminator)
    assert len(calls) == 1


def test_a_logits_processor_knows_how_many_tokens_there_are():
    from hf_gpt.generation.guidance.logits_processor import DiscriminatorLogitsProcessor

    ids, logits = torch.tensor([[5, 6]]), torch.zeros(1, 2000)
    for size in (100, 9000):
        with pytest.raises(TokensError, match=f"2,000 tokens, .* reads {size:,}"):
            DiscriminatorLogitsProcessor(make_discriminator(size))(ids, logits)
    assert DiscriminatorLogitsProcessor(make_discriminator(2000))(ids, logits).shape == (1, 2000)
