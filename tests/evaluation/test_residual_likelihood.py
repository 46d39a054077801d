"""Likelihood of a residual model, where every text can be listed."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_gpt.evaluation.language_model.likelihood import likelihood
from hf_gpt.evaluation.language_model.residual_likelihood import residual_likelihood, text_rows
from hf_gpt.evaluation.loading import compute
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.scoring.discriminator import sequence_scores
from tests.generation.enumerated import BEGIN, EOS, LENGTH, VOCAB, all_texts, make_lm, probabilities


SAMPLING = SamplingConfig(max_new_tokens=LENGTH, eos_token_id=EOS, pad_token_id=EOS)


@pytest.fixture
def generator():
    return make_lm(0, pad_token_id=EOS)


@pytest.fixture
def discriminator():
    config = AutoConfig.for_model(
        "hf_ngram_cnn", vocab_size=VOCAB, kernel_sizes=[1, 2], num_labels=1, pad_token_id=EOS, initializer_range=0.25
    )
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_config(config).eval()


def test_it_is_that_of_the_enumerated_model(generator, discriminator):
    texts = [list(text) for text in all_texts()]
    prompts = [[BEGIN]] * len(texts)
    found = residual_likelihood(
        generator, discriminator, prompts, texts, sampling=SAMPLING, num_samples=20_000, batch_size=4096
    )
    q = probabilities(generator).double().numpy()
    np.testing.assert_allclose(found.nll, -np.log(q), rtol=1e-4)
    scores = [sequence_scores(discriminator, torch.tensor([[BEGIN, *text]])).item() for text in texts]
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    log_z = np.log(np.sum(q * np.exp(scores)))
    assert log_z == pytest.approx(found.convergence()[-1]["lower"], abs=0.03)
    # The residual model is a distribution: its probabilities sum to 1.
    gains = found.scores - log_z
    assert np.exp(-found.nll + gains).sum() == pytest.approx(1, abs=1e-4)
    assert found.gain.gain == pytest.approx(gains.mean(), abs=0.03)
    nats = (found.nll.sum() - gains.sum()) / sum(map(len, texts))
    assert found.to_dict()["perplexity"] == pytest.approx(np.exp(nats), rel=0.03)
    assert found.to_dict()["perplexity_low"] < np.exp(nats) < found.to_dict()["perplexity_high"]


def test_bounds_meet_as_samples_grow(generator, discriminator):
    texts = [list(text) for text in all_texts()]
    found = residual_likelihood(
        generator, discriminator, [[BEGIN]] * len(texts), texts, sampling=SAMPLING, num_samples=8192, batch_size=4096
    )
    points = found.convergence()
    assert [point["samples"] for point in points] == [2**n for n in range(3, 14)]
    gaps = [point["upper"] - point["lower"] for point in points]
    assert gaps[0] > 4 * gaps[4] > 16 * gaps[8] > 0
    q = probabilities(generator).double().numpy()
    log_z = np.log(np.sum(q * np.exp(found.scores)))
    assert points[0]["lower"] - 0.02 < log_z < points[0]["upper"] + 0.02


def test_prompts_that_differ_have_a_partition_function_each(generator, discriminator):
    prompts, texts = [[BEGIN], [BEGIN, 1], [BEGIN]], [[0, EOS], [1, EOS], [1, 1, 0]]
    found = residual_likelihood(generator, discriminator, prompts, texts, sampling=SAMPLING, num_samples=30)
    assert found.sample_scores.shape == (3, 10) and found.tokens.tolist() == [2, 2, 3]
    # Never fewer than eight.
    found = residual_likelihood(generator, discriminator, prompts, texts, sampling=SAMPLING, num_samples=6)
    assert found.sample_scores.shape == (3, 8)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batches_change_nothing(generator, discriminator, batch_size):
    texts = [list(text) for text in all_texts()]
    options = {"sampling": SAMPLING, "num_samples": 64, "seed": 3}
    done = []
    found, whole = (
        residual_likelihood(
            generator, discriminator, [[BEGIN]] * len(texts), texts, batch_size=size, advance=done.append, **options
        )
        for size in (batch_size, 64)
    )
    np.testing.assert_allclose(found.nll, whole.nll, atol=1e-4)
    np.testing.assert_allclose(found.sample_scores, whole.sample_scores, atol=1e-4)
    assert sum(done) == 2 * (len(texts) + 64)


def test_without_a_discriminator_it_is_the_generator(make_model, tokenizer):
    model, texts = make_model(), ["to be or not", "the king", "  speak "]
    prompts, rows = text_rows(tokenizer, texts, 30)
    sampling = SamplingConfig(max_new_tokens=30, eos_token_id=tokenizer.eos_token_id)
    found = residual_likelihood(model, None, prompts, rows, sampling=sampling)
    whole = likelihood(model, tokenizer, texts)
    # The end token is one more.
    assert found.tokens.tolist() == (whole.tokens + 1).tolist() and (found.nll > whole.nll).all()
    assert (found.gain.gain, found.gain.low, found.gain.high) == (0, 0, 0)
    assert found.perplexity(found.gain.gain) == found.perplexity()


def test_texts_are_cut_and_have_the_end_token(tokenizer):
    prompts, rows = text_rows(tokenizer, ["a", "a b c d e f g h", "<|endoftext|>"], 4)
    assert prompts == [[tokenizer.bos_token_id]] * 3
    assert rows[0][-1] == tokenizer.eos_token_id and len(rows[0]) < 4
    assert len(rows[1]) == 4 and tokenizer.eos_token_id not in rows[1]
    assert tokenizer.eos_token_id not in rows[2]


def test_the_metric_gives_bounds_and_convergence(make_model, tokenizer, corpus_text):
    from hf_gpt import make_discriminator

    texts = [line for line in corpus_text.splitlines() if len(line) > 20][:12]
    generator = make_model(max_position_embeddings=64)
    found = compute(
        "residual_perplexity",
        texts,
        model=generator,
        discriminator=make_discriminator("ngram_cnn", generator),
        processing_class=tokenizer,
        max_new_tokens=16,
        num_samples=64,
    )
    assert found["perplexity_low"] <= found["perplexity"] <= found["perplexity_high"]
    assert found["gain_lower_bound"] <= found["gain"] <= found["gain_upper_bound"]
    assert found["texts"] == 12 and found["samples"] == 64 and found["convergence"][-1]["samples"] == 64


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampling": SamplingConfig(temperature=0.8, max_new_tokens=3)}, "temperature 1"),
        ({"sampling": SamplingConfig(top_p=0.9, max_new_tokens=3)}, "temperature 1"),
        ({"num_samples": 1}, "two samples"),
        ({"prompts": [[BEGIN]], "completions": [[0]]}, "two texts"),
        ({"prompts": [[BEGIN]] * 2, "completions": [[0], []]}, "not empty"),
    ],
)
def test_what_cannot_be_measured_is_refused(generator, discriminator, options, message):
    given = {"prompts": [[BEGIN]] * 2, "completions": [[0, EOS], [1, EOS]], "sampling": SAMPLING, **options}
    with pytest.raises(ValueError, match=message):
        residual_likelihood(generator, discriminator, given.pop("prompts"), given.pop("completions"), **given)
