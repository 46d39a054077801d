"""Log-probabilities are those of the distribution that was sampled from: all texts of a small world are added up."""

import pytest
import torch

from hf_gpt.generation.sampling.distribution import SamplingConfig, pack, unpack
from hf_gpt.generation.scoring.logprobs import completion_logps
from tests.generation.enumerated import BEGIN, EOS, VOCAB, all_texts, counts, make_lm
from tests.sampling_options import rollout


SETTINGS = [
    {"temperature": 0.8},
    {"temperature": 0.5},
    {"top_p": 0.8},
    {"top_k": 2},
    {"min_p": 0.5},
    {"temperature": 0.7, "top_k": 3, "top_p": 0.9, "min_p": 0.2},
]


def texts_of_the_world():
    """Sequences, masks, prompt lengths, completions and their masks of every text."""
    texts = all_texts()
    width = max(map(len, texts))
    completions = torch.tensor([[*text, *[EOS] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1.0] * len(text) + [0.0] * (width - len(text)) for text in texts])
    sequences = torch.cat([torch.full((len(texts), 1), BEGIN), completions], 1)
    attention_mask = torch.cat([torch.ones(len(texts), 1), mask], 1).long()
    return sequences, attention_mask, torch.ones(len(texts), dtype=torch.int64), completions, mask


def probabilities_by_hand(model, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    """Of all texts, token by token in plain Python."""
    found = []
    for text in all_texts():
        total, prefix = 1.0, [BEGIN]
        for token in text:
            with torch.no_grad():
                logits = model(torch.tensor([prefix])).logits[0, -1].double() / temperature
            shares = dict(enumerate(logits.softmax(-1).tolist()))
            order = sorted(shares, key=shares.get, reverse=True)
            order = order[: top_k or VOCAB]
            mass, kept = sum(shares[one] for one in order), []
            for one in order:
                if sum(shares[other] for other in kept) / mass < top_p:
                    kept.append(one)
            kept = [one for one in kept if shares[one] >= min_p * shares[order[0]]]
            total *= shares[token] / sum(shares[one] for one in kept) if token in kept else 0.0
            prefix.append(token)
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_expected_score_is_zero_and_texts_add_up_to_one(settings):
    model = make_lm(0, pad_token_id=EOS).double()
    *texts, completions, mask = texts_of_the_world()
    logps = completion_logps(model, *texts, completions, **settings)
    logps = (logps.masked_fill(~mask.bool(), 0.0)).sum(-1)
    exact = probabilities_by_hand(model, **settings)
    torch.testing.assert_close(logps.exp(), exact.double(), rtol=0, atol=1e-7)
    assert logps.exp().sum().item() == pytest.approx(1, abs=1e-5)
    possible = exact > 0
    score = torch.autograd.grad((exact * logps)[possible].sum(), list(model.parameters()), allow_unused=True)
    assert sum(part.square().sum() for part in score if part is not None).sqrt() < 1e-6


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.usefixtures("steps")
def test_rollouts_have_the_log_probabilities_of_what_they_sample_from(settings):
    model = make_lm(0, pad_token_id=EOS)
    samples = rollout(
        model,
        num_return_sequences=3000,
        max_new_tokens=3,
        bos_token_id=BEGIN,
        eos_token_id=EOS,
        generator=torch.Generator().manual_seed(0),
        return_model_logps=True,
        **settings,
    )
    exact = probabilities_by_hand(model, **settings)
    texts = [
        tuple(ids[kept].tolist()) for ids, kept in zip(samples.completions, samples.completion_mask.bool(), strict=True)
    ]
    positions = torch.tensor([all_texts().index(text) for text in texts])
    torch.testing.assert_close(samples.logps.sum(-1).exp(), exact[positions].float(), rtol=1e-4, atol=1e-6)
    own = probabilities_by_hand(model)[positions].float()
    torch.testing.assert_close(samples.model_logps.sum(-1).exp(), own, rtol=1e-4, atol=1e-6)
    assert (counts(samples.sequences) / 3000 - exact).abs().max() < 0.04
    with torch.no_grad():
        again = completion_logps(
            model,
            samples.sequences,
            samples.attention_mask,
            samples.prompt_length,
            samples.completions,
            support=samples.support,
            **settings,
        )
    torch.testing.assert_close(samples.logps, again * samples.completion_mask, rtol=0, atol=1e-5)
    assert (samples.support is None) == (not SamplingConfig(**settings).is_truncated)


@pytest.mark.usefixtures("steps")
def test_a_greedy_rollout_is_certain():
    model = make_lm(0, pad_token_id=EOS)
    samples = rollout(
        model, num_return_sequences=2, max_new_tokens=3, bos_token_id=BEGIN, eos_token_id=EOS, temperature=0
    )
    assert samples.logps.eq(0).all()
    texts = samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
    again = completion_logps(model, *texts, temperature=0)
    assert (again * samples.completion_mask).eq(0).all()
    others = (samples.completions + 1) % VOCAB
    assert completion_logps(model, *texts[:3], others, temperature=0)[:, 0].eq(-torch.inf).all()


def test_int8_rollouts_have_the_log_probabilities_of_the_rounded_tempered_weights():
    from hf_gpt.generation.decoding.cached_decoder import make_weights

    model = make_lm(0, spread=1.0, pad_token_id=EOS)
    options = {"num_return_sequences": 4, "max_new_tokens": 1, "bos_token_id": BEGIN, "weight_dtype": "int8"}
    samples = rollout(model, temperature=0.5, generator=torch.Generator().manual_seed(0), **options)
    prompts = torch.full((4, 1), BEGIN)
    with torch.no_grad():
        state = make_weights(model, "int8", 4).start(model, prompts, torch.ones_like(prompts), 1)
        rounded = (state.next_logits().float() / 0.5).log_softmax(-1).gather(-1, samples.completions)
    torch.testing.assert_close(samples.logps, rounded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", ["resample", "best_of_n", "reject", "particles"])
@pytest.mark.parametrize("settings", [{"top_k": 2, "temperature": 0.7}, {"top_p": 0.8, "top_k": 0}, {"min_p": 0.4}])
def test_a_language_model_guides_against_what_the_generator_samples_from(guidance, settings):
    """log psi - log q' of the chosen text, q' after truncation: the target is psi on what that leaves."""
    from hf_gpt.generation.guidance.guided_generate import guided_generate

    generator, psi = make_lm(0, pad_token_id=EOS), make_lm(1, pad_token_id=EOS)
    torch.manual_seed(0)
    output = generator.generate(
        torch.full((12, 1), BEGIN),
        do_sample=True,
        max_new_tokens=3,
        eos_token_id=EOS,
        pad_token_id=EOS,
        custom_generate=guided_generate,
        discriminator=psi,
        guidance=guidance,
        num_candidates=4,
        guidance_block=1,
        return_dict_in_generate=True,
        **settings,
    )
    theirs = probabilities_by_hand(psi, settings.get("temperature", 1.0)).log()
    own = probabilities_by_hand(generator, **settings).log()
    texts = [tuple(row[: row.index(EOS) + 1] if EOS in row else row) for row in output.sequences[:, 1:].tolist()]
    positions = torch.tensor([all_texts().index(text) for text in texts])
    assert own[positions].isfinite().all()
    expected = (theirs - own)[positions].float()
    torch.testing.assert_close(output.discriminator_scores, expected, rtol=0, atol=1e-4)


def test_particles_reach_their_target_by_recorded_log_probabilities():
    from tests.sampling_options import grow_particles

    generator, psi = make_lm(0, pad_token_id=EOS), make_lm(1, pad_token_id=EOS)
    samples = {
        "num_return_sequences": 300,
        "num_particles": 64,
        "block_size": 1,
        "max_new_tokens": 3,
        "temperature": 0.8,
    }
    seeded = torch.Generator().manual_seed(0)
    particles = grow_particles(generator, psi, bos_token_id=BEGIN, eos_token_id=EOS, generator=seeded, **samples)
    found = counts(particles.texts.sequences, weights=particles.weights.flatten()) / 300
    assert (found - probabilities_by_hand(psi)).abs().sum() / 2 < 0.05


def test_a_recorded_support_is_a_bit_a_token():
    kept = torch.rand(3, 5, 21, generator=torch.Generator().manual_seed(0)) < 0.3
    packed = pack(kept)
    assert packed.shape == (3, 5, 3) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, 21), kept)
    assert pack(torch.tensor([[True, False, False, True]])).tolist() == [[9]]


def test_a_support_is_fixed_for_gradients_and_other_logits():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], requires_grad=True)
    sampling = SamplingConfig(top_k=2)
    support = pack(sampling.support(logits))
    other = torch.tensor([[0.0, 1.0, 2.0, 3.0]], requires_grad=True)
    policy = sampling.policy_logits(other, support).softmax(-1)
    torch.testing.assert_close(policy[0, :2], torch.tensor([0.0, 1.0]).softmax(-1))
    assert policy[0, 2:].eq(0).all()
    policy[0, 0].log().backward()
    assert other.grad[0, 2:].eq(0).all() and other.grad.sum().abs() < 1e-6
    # A token that was sampled stays, whatever rounding says of the border.
    kept = sampling.policy_logits(other.detach(), sampled=torch.tensor([0]))
    assert kept[0].isfinite().tolist() == [True, False, True, True]


@pytest.mark.parametrize("settings", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"min_p": 2}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="0 < top_p <= 1"):
        SamplingConfig(**settings)
