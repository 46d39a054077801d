"""A critic trained for a generator that stays as it is: what it can and cannot learn, and on what it learns it."""

import pytest
import torch

from hf_gpt.adversarial.discriminator.factory import make_discriminator
from hf_gpt.adversarial.discriminator.train_discriminator import train_discriminator
from hf_gpt.data.windows import text_windows
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.evaluation.language_model.fitting import Fit
from tests.sampling_options import rollout


LENGTH = 8


def make_generator(seed: int, **options):
    from hf_gpt import HfGptConfig, HfGptForCausalLM

    torch.manual_seed(seed)
    settings = {
        "vocab_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "initializer_range": 0.4,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return HfGptForCausalLM(HfGptConfig(**{**settings, **options})).eval()


def texts_of(model, number: int, seed: int) -> list[dict[str, list[int]]]:
    samples = rollout(
        model,
        num_return_sequences=number,
        max_new_tokens=LENGTH,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        generator=torch.Generator().manual_seed(seed),
    )
    kept = samples.completion_mask.bool()
    return [
        {"prompt_ids": [1], "completion_ids": ids[mask].tolist()}
        for ids, mask in zip(samples.completions, kept, strict=True)
    ]


@pytest.mark.parametrize("level", ["sequence", "prefix"])
def test_a_critic_finds_another_generator_but_not_the_same(level):
    """The generator's own texts as "real" ones: any difference that a critic found would be one of treatment."""
    generator = make_generator(0)
    settings = {"max_new_tokens": LENGTH, "level": level, "epochs": 4, "batch_size": 100}
    torch.manual_seed(0)
    same = train_discriminator(
        generator, make_discriminator("ngram_cnn", generator), texts_of(generator, 500, 7), **settings
    )
    # Standard error of the AUC of 50 against 50 texts: 0.058.
    assert abs(same.auc - 0.5) < 0.17 and abs(same.shortcut_auc - 0.5) < 0.1
    torch.manual_seed(0)
    other = train_discriminator(
        generator, make_discriminator("ngram_cnn", generator), texts_of(make_generator(1), 500, 7), **settings
    )
    assert other.auc > 0.8 and other.loss < 0.6


def test_the_logit_estimates_the_log_ratio():
    """Texts of one token, p and q known: the mean logit of a token is log p - log q."""
    generator, data = make_generator(0, initializer_range=0.25), make_generator(1, initializer_range=0.25)
    rows = [{"prompt_ids": [1], "completion_ids": row["completion_ids"][:1]} for row in texts_of(data, 3000, 3)]
    discriminator = make_discriminator("ngram_cnn", generator, classifier_dropout=0.0)
    train_discriminator(generator, discriminator, rows, max_new_tokens=1, epochs=8, batch_size=300, learning_rate=1e-2)
    begin = torch.tensor([[1]])
    with torch.no_grad():
        q, p = (model(begin).logits[0, -1].log_softmax(-1) for model in (generator, data))
        tokens = torch.tensor([[1, token] for token in range(12)])
        logits = discriminator(tokens, attention_mask=torch.ones_like(tokens)).logits[:, 0]
    common = (p.exp() > 0.04) & (q.exp() > 0.04)
    assert common.sum() >= 5
    torch.testing.assert_close(logits[common], (p - q)[common], rtol=0, atol=0.35)
    assert torch.corrcoef(torch.stack([logits[common], (p - q)[common]]))[0, 1] > 0.95


def test_runs_repeat_and_leave_the_generator_alone():
    generator = make_generator(0)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    rows = texts_of(make_generator(1), 60, 1)
    results, weights = [], []
    for _ in range(2):
        torch.manual_seed(3)
        discriminator = make_discriminator("from_generator", generator)
        results.append(train_discriminator(generator, discriminator, rows, max_new_tokens=LENGTH, epochs=2, seed=5))
        weights.append(discriminator.score.weight.detach().clone())
    assert results[0] == results[1] and torch.equal(*weights)
    assert all(torch.equal(before[name], tensor) for name, tensor in generator.state_dict().items())
    assert results[0].num_texts == 48 and results[0].num_test_texts == 6


def test_generated_texts_answer_the_same_prompts(monkeypatch):
    """Every real row has its generated one: same prompt, cut alike."""
    import hf_gpt.adversarial.discriminator.train_discriminator as module

    generator = make_generator(0)
    generated = []
    original = module._generated_rows

    def spy(*args):
        generated.extend(original(*args))
        return generated

    monkeypatch.setattr(module, "fit", lambda *args, **options: Fit([0.7], 1))
    monkeypatch.setattr(module, "_generated_rows", spy)
    rows = [{"prompt_ids": [1, *[3 + n % 5] * (1 + n % 3)], "completion_ids": [4] * 20} for n in range(40)]
    train_discriminator(generator, make_discriminator("ngram_cnn", generator), rows, max_new_tokens=LENGTH)
    assert [row["prompt_ids"] for row in generated] == [row["prompt_ids"] for row in rows]
    for row in generated:
        ids = row["completion_ids"]
        assert 1 <= len(ids) <= LENGTH and 2 not in ids[:-1] and (len(ids) == LENGTH or ids[-1] == 2)


def test_windows_by_hand(tokenizer):
    end = tokenizer.eos_token_id
    ids = tokenizer("to be or not to be")["input_ids"]
    rows = text_windows(["to be or not to be", "a"], tokenizer, prompt_tokens=2, max_new_tokens=3)
    whole = [end, *ids, end]
    assert rows[0] == {"prompt_ids": whole[:2], "completion_ids": whole[2:5]}
    assert rows[1] == {"prompt_ids": whole[5:7], "completion_ids": whole[7:10]}
    short = [end, *tokenizer("a")["input_ids"], end]
    assert rows[-1] == {"prompt_ids": short[:2], "completion_ids": short[2:]}
    with pytest.raises(CorpusError, match="no document is longer"):
        text_windows(["a"], tokenizer, prompt_tokens=9, max_new_tokens=3)


def test_every_kind_of_discriminator_is_made_by_its_name():
    generator = make_generator(0)
    made = {kind: make_discriminator(kind, generator) for kind in ("from_generator", "ngram_cnn", "ngram_cnn-seqgan")}
    assert [model.config.num_labels for model in made.values()] == [1, 1, 1]
    assert made["ngram_cnn"].config.classifier_dropout == made["ngram_cnn-seqgan"].config.classifier_dropout == 0.25
    assert len(made["ngram_cnn-seqgan"].config.kernel_sizes) == 12
    with pytest.raises(ConfigError, match="now called from_generator"):
        make_discriminator("generator", generator)


def test_what_cannot_work_is_refused_before_training():
    from transformers import AutoConfig, AutoModelForSequenceClassification

    generator = make_generator(0)
    rows = texts_of(generator, 40, 0)
    with pytest.raises(CorpusError, match="at least 30"):
        train_discriminator(generator, make_discriminator("ngram_cnn", generator), rows[:10], max_new_tokens=LENGTH)
    with pytest.raises(ConfigError, match="no discriminator 'cnn'"):
        make_discriminator("cnn", generator)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = AutoConfig.for_model("bert", vocab_size=12, num_labels=1, **sizes)
    with pytest.raises(ConfigError, match="prefix"):
        train_discriminator(
            generator, AutoModelForSequenceClassification.from_config(bert), rows, max_new_tokens=8, level="prefix"
        )
