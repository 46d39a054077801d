"""The particle filter, against distributions over all texts that are worked out exactly."""

import math

import pytest
import torch

from hf_gpt.generation.guidance.particle_filter import ParticleFilter
from hf_gpt.generation.guidance.selection import resample_systematically
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.scoring.discriminator import sequence_scores
from hf_gpt.generation.scoring.log_ratio import LogRatio, is_language_model, log_ratio, text_logps
from tests.generation.enumerated import (
    BEGIN,
    EOS,
    LENGTH,
    PAD,
    counts,
    log_probability,
    make_lm,
    probabilities,
    total_variation,
)
from tests.sampling_options import grow_particles, rollout


TEXTS = {"max_new_tokens": LENGTH, "bos_token_id": BEGIN, "eos_token_id": EOS}
PROMPTS = torch.tensor([[PAD, PAD, 5], [7, 8, 9]]), torch.tensor([[0, 0, 1], [1, 1, 1]])


def samples(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grow(model, discriminator, rows: int, particles: int, seed: int = 0, **options):
    return grow_particles(
        model,
        discriminator,
        num_return_sequences=rows,
        num_particles=particles,
        generator=samples(seed),
        **{**TEXTS, **options},
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_by_a_language_model_texts_become_its_own(pair, temperature, resampling):
    generator, data, _ = pair
    settings = {"temperature": temperature, "discriminator_temperature": temperature, "resampling": resampling}
    target = probabilities(data, temperature)
    before = total_variation(probabilities(generator, temperature), target)
    distances = []
    for count in (2, 48):
        particles = grow(generator, data, 1500, count, block_size=1, **settings)
        distances.append(total_variation(counts(particles.sample(samples(1)).sequences), target))
    # Sampling noise alone: 1500 draws of the data itself.
    noise = total_variation(torch.bincount(torch.multinomial(target, 1500, True), minlength=len(target)), target)
    assert before > 0.3 and distances[0] < before and distances[1] < noise + 0.04
    assert particles.num_resampled.max() > 0
    # All particles by weight tell the same as one by weight, with less noise.
    found = counts(particles.texts.sequences, weights=particles.weights.flatten())
    assert total_variation(found, target) < distances[1] + 0.01


def whole_texts_only(log_ratio):
    """The same critic, which has no opinion of a text that has not ended."""

    def judge(sequences, attention_mask):
        last = sequences.gather(1, attention_mask.sum(1, keepdim=True) - 1)[:, 0]
        ended = (last == EOS) | (attention_mask.sum(1) == LENGTH + 1)
        return torch.where(ended, log_ratio(sequences, attention_mask), 0.0)

    return judge


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("judge", [lambda discriminator: discriminator, whole_texts_only])
def test_by_logits_texts_become_the_data(pair, judge, block):
    generator, data, discriminator = pair
    target = probabilities(data)
    particles = grow(generator, judge(discriminator), 1500, 48, block_size=block)
    noise = total_variation(torch.bincount(torch.multinomial(target, 1500, True), minlength=len(target)), target)
    texts = particles.sample(samples(1))
    assert total_variation(counts(texts.sequences), target) < noise + 0.04
    torch.testing.assert_close(
        particles.scores.flatten()[:50],
        discriminator(particles.texts.sequences[:50], particles.texts.attention_mask[:50]),
    )


def test_a_hot_critic_hardly_chooses(pair):
    generator, _, discriminator = pair
    cool = grow(generator, discriminator, 300, 8, discriminator_temperature=1.0, block_size=4)
    hot = grow(generator, discriminator, 300, 8, discriminator_temperature=50.0, block_size=4)
    assert hot.effective_sample_size.mean() > 7.9 > 6 > cool.effective_sample_size.mean()
    torch.testing.assert_close(cool.scores, hot.scores)


@pytest.mark.parametrize("block", [1, 2, 5])
def test_one_particle_is_a_rollout(block):
    model, discriminator = make_lm(3, vocab_size=40), make_lm(4, vocab_size=40)
    options = {"max_new_tokens": 5, "temperature": 0.8, "eos_token_id": EOS, "pad_token_id": PAD}
    expected = rollout(model, *PROMPTS, num_return_sequences=3, generator=samples(), **options)
    settings = {"num_particles": 1, "block_size": block, "num_return_sequences": 3}
    found = grow_particles(model, discriminator, PROMPTS, generator=samples(), **settings, **options).sample()
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), tensor, msg=name)


@pytest.mark.parametrize("model_type", ["hf_gpt", "llama", "gpt2"])
@pytest.mark.parametrize("kind", ["language model", "classifier"])
def test_prompts_of_different_lengths_and_batches(make_discriminator, model_type, kind):
    extra = {"n_inner": 16} if model_type == "gpt2" else {}
    model = make_lm(3, model_type, vocab_size=40, **extra)
    discriminator = (
        make_lm(4, model_type, vocab_size=40, **extra) if kind == "language model" else make_discriminator("hf_gpt")
    )
    options = {"max_new_tokens": 7, "num_particles": 5, "block_size": 2, "eos_token_id": [EOS, 11], "pad_token_id": PAD}
    runs = [
        grow_particles(
            model, discriminator, PROMPTS, num_return_sequences=2, generator=samples(), batch_size=size, **options
        )
        for size in (None, 3)
    ]
    texts = runs[0].texts
    assert torch.equal(texts.sequences, runs[1].texts.sequences) and runs[0].weights.shape == (4, 5)
    torch.testing.assert_close(runs[0].weights, runs[1].weights, rtol=1e-4, atol=1e-5)
    assert texts.prompt_length.tolist() == [1] * 10 + [3] * 10
    assert (texts.sequences[:10, 0] == 5).all() and (texts.sequences[10:, :3] == torch.tensor([7, 8, 9])).all()
    for ids, mask in zip(texts.completions.tolist(), texts.completion_mask.bool().tolist(), strict=True):
        inside = [token for token, kept in zip(ids, mask, strict=True) if kept]
        assert not {EOS, 11} & set(inside[:-1]) and (len(inside) == 7 or inside[-1] in (EOS, 11))
        assert set(ids[len(inside) :]) <= {PAD}
    if kind == "classifier":
        alone = sequence_scores(discriminator, texts.sequences, texts.attention_mask)
    else:
        alone = log_ratio(discriminator, model, texts)
    torch.testing.assert_close(runs[0].scores.flatten(), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(texts.logps.sum(1), text_logps(model, texts), rtol=1e-4, atol=1e-5)


def test_the_log_ratio_of_a_completion_leaves_the_prompt_out(pair):
    generator, data, _ = pair
    ids = torch.tensor([[PAD, 3, 1, 0, EOS], [3, 0, 3, 1, PAD]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    found = LogRatio(data, generator, 3, SamplingConfig(0.5), SamplingConfig(2.0))(ids, mask)
    expected = torch.zeros(2)
    for sign, model, temperature in ((1, data, 0.5), (-1, generator, 2.0)):
        short = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 0, 0]])
        whole = log_probability(model, ids, mask, temperature)
        expected += sign * (whole - log_probability(model, ids, short, temperature))
    torch.testing.assert_close(found, expected)


def test_the_filter_by_hand():
    cloud = ParticleFilter(3, 3, generator=samples())
    growing = torch.tensor([True] * 5 + [False] * 4)
    # Effective sizes 1 / .375 = 2.7 and 1 / (.9^2 + 2 .05^2) = 1.2 of 3: the second is drawn anew. The third is as
    # uneven, but at its end.
    shares = torch.tensor([[0.25, 0.25, 0.5], [0.05, 0.9, 0.05], [0.05, 0.9, 0.05]])
    chosen = cloud.update(shares.log().flatten(), growing)
    assert chosen[:3].tolist() == [0, 1, 2] and (chosen[3:6] == 4).sum() >= 2 and chosen[6:].tolist() == [6, 7, 8]
    torch.testing.assert_close(cloud.weights, torch.tensor([[0.25, 0.25, 0.5], [1 / 3] * 3, [0.05, 0.9, 0.05]]))
    assert cloud.num_resampled.tolist() == [0, 1, 0]
    assert cloud.scores[1].tolist() == pytest.approx(shares[1].log()[chosen[3:6] - 3].tolist())
    # Whoever gains nothing, such as a finished text, keeps its weight.
    gained = torch.tensor([0.0, math.log(2.0), *[0.0] * 7])
    assert cloud.update(cloud.scores.flatten() + gained, growing) is None
    torch.testing.assert_close(cloud.weights[0], torch.tensor([0.2, 0.4, 0.4]))
    # Where all are ruled out nothing is left to choose by.
    cloud.update(torch.full((9,), -torch.inf), growing)
    torch.testing.assert_close(cloud.weights, torch.full((3, 3), 1 / 3))


def test_a_text_is_ruled_out_as_long_as_the_critic_does_so():
    """In the second group all are at first, and one has ended so."""
    cloud = ParticleFilter(2, 2)
    growing = torch.tensor([True, True, True, False])
    assert cloud.update(torch.tensor([-torch.inf, 0.5, -torch.inf, -torch.inf]), growing) is None
    torch.testing.assert_close(cloud.weights, torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    scores = torch.tensor([[1.0, 0.5], [2.0, -torch.inf]])
    assert cloud.update(scores.flatten(), growing) is None
    torch.testing.assert_close(cloud.weights, scores.softmax(-1))
    torch.testing.assert_close(cloud.scores, scores)


@pytest.mark.parametrize("rows", [1, 20])
def test_scores_are_what_the_critic_says_in_the_end(pair, rows):
    generator, _, discriminator = pair

    def shun_even_lengths(sequences, attention_mask):
        is_even = attention_mask.sum(1) % 2 == 0
        return discriminator(sequences, attention_mask).masked_fill(is_even, -torch.inf)

    found = grow(generator, shun_even_lengths, rows, 16, block_size=1)
    whole = shun_even_lengths(found.texts.sequences, found.texts.attention_mask).view(rows, 16)
    torch.testing.assert_close(found.scores, whole)
    # One without a chance has no weight, unless all are such.
    chances = whole.isfinite()
    assert chances.any() and not found.weights[chances.any(1)][~chances[chances.any(1)]].any()


def test_systematic_resampling_draws_each_as_often_as_its_weight_says():
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2])
    found = resample_systematically(weights.log().expand(4000, -1), 4, generator=samples())
    numbers = torch.stack([(found == position).sum(1) for position in range(4)], 1)
    assert (numbers[:, 0] == 2).all() and (numbers[:, 1] == 0).all()
    assert set(numbers[:, 2].tolist()) == {1, 2} and set(numbers[:, 3].tolist()) == {0, 1}
    torch.testing.assert_close(numbers.float().mean(0), 4 * weights, rtol=0, atol=0.03)
    # Equal weights change nothing, whatever the number.
    assert (resample_systematically(torch.zeros(100, 7), 7, generator=samples()) == torch.arange(7)).all()


def test_language_models_are_told_from_classifiers(make_discriminator):
    assert is_language_model(make_lm(0)) and is_language_model(make_lm(0, "llama"))
    assert not is_language_model(make_discriminator("hf_gpt")) and not is_language_model(lambda ids, mask: ids)


def test_a_classifier_with_too_few_positions_is_refused(make_discriminator):
    discriminator = make_discriminator("bert", max_position_embeddings=8)
    options = {"max_new_tokens": 6, "eos_token_id": EOS, "num_particles": 2}
    with pytest.raises(ValueError, match=r"up to 9 tokens.* positions for 8"):
        grow_particles(make_lm(3, vocab_size=40), discriminator, PROMPTS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "at least 1 particle"),
        ({"block_size": 0}, "at least 1 token"),
        ({"resampling": "residual"}, "Choose one of: systematic, multinomial"),
        ({"discriminator_temperature": 0.0}, "above 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"max_new_tokens": 40}, "32 positions"),
        ({"discriminator": make_lm(1, max_position_embeddings=3)}, "3 positions"),
        (
            {"discriminator": make_lm(1, vocab_size=3, bos_token_id=1)},
            "Both need one tokenizer",
        ),
    ],
)
def test_settings_that_cannot_work(pair, options, message):
    generator, data, _ = pair
    settings = {"discriminator": data, "num_particles": 4, "num_return_sequences": 5, **TEXTS, **options}
    with pytest.raises(ValueError, match=message):
        grow_particles(generator, settings.pop("discriminator"), **settings)
