import itertools
import math

import pytest
import torch

from eval.experiments.common.random_language import RandomLanguage
from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.evaluation.statistics.divergences import compare_densities
from hf_gpt.generation.scoring.logprobs import completion_logps
from tests.sampling_options import rollout


VOCAB, LENGTH = 4, 3


def _models():
    torch.manual_seed(0)
    config = HfGptConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        initializer_range=0.5,
    )
    return RandomLanguage(VOCAB, 8, sharpness=0.6, seed=1), HfGptForCausalLM(config).eval()


def _density(model, temperature=1.0):
    """Probability of each of the 64 texts."""
    texts = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))
    sequences = torch.cat([torch.zeros(len(texts), 1, dtype=torch.long), texts], 1)
    logits = model(input_ids=sequences).logits[:, :-1].double() / temperature
    return logits.log_softmax(-1).gather(-1, texts.unsqueeze(-1)).sum((1, 2)).exp().detach()


def _kl(a, b):
    return (a * (a / b).log()).sum().item()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_estimates_agree_with_enumeration(temperature):
    data_model, model = _models()
    p, q = _density(data_model), _density(model, temperature)
    assert p.sum().item() == pytest.approx(1) and q.sum().item() == pytest.approx(1)

    def sample(sampled_from, seed, temperature=1.0):
        generator = torch.Generator().manual_seed(seed)
        return rollout(
            sampled_from,
            num_return_sequences=4000,
            bos_token_id=0,
            max_new_tokens=LENGTH,
            temperature=temperature,
            generator=generator,
        )

    comparison = compare_densities(data_model, model, sample(data_model, 0), sample(model, 1, temperature), temperature)
    exact = {
        "kl_qp": _kl(q, p),
        "kl_pq": _kl(p, q),
        "jsd": (_kl(p, (p + q) / 2) + _kl(q, (p + q) / 2)) / 2,
        "entropy_p": -(p * p.log()).sum().item(),
        "entropy_q": -(q * q.log()).sum().item(),
        "nll_oracle": -(q * p.log()).sum().item(),
        "nll_test": -(p * q.log()).sum().item(),
    }
    assert exact.keys() == comparison.estimates.keys() and exact["kl_qp"] > 0.3
    for name, value in exact.items():
        estimate = comparison.estimates[name]
        assert 0 < estimate.error < 0.05
        assert abs(estimate.value - value) < 4 * estimate.error + 1e-6, name
    # The scores are those of the perfect discriminator.
    assert comparison.data_scores.mean().item() == pytest.approx(_kl(p, q), abs=0.2)
    assert comparison.data_scores.mean() > 0 > comparison.model_scores.mean()


def test_a_model_is_no_distance_from_itself():
    data_model, _ = _models()
    texts = rollout(data_model, num_return_sequences=50, bos_token_id=0, max_new_tokens=LENGTH)
    estimates = compare_densities(data_model, data_model, texts, texts, batch_size=20).estimates
    for name in ("kl_qp", "kl_pq", "jsd"):
        assert estimates[name].value == pytest.approx(0, abs=1e-6)
    assert estimates["entropy_p"].value == estimates["entropy_q"].value


def test_random_language_is_the_same_for_its_seed_and_sharper_for_more_sharpness():
    ids = torch.tensor([[0, 1, 2]])
    one, same, other, sharp = (
        RandomLanguage(8, 8, s, seed)(ids).logits for s, seed in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert torch.equal(one, same) and not torch.allclose(one, other)
    torch.testing.assert_close(sharp, 2 * one)
    language = RandomLanguage(8, 8)
    texts = rollout(language, num_return_sequences=3, bos_token_id=0, max_new_tokens=2)
    again = completion_logps(language, texts.sequences, texts.attention_mask, texts.prompt_length, texts.completions)
    torch.testing.assert_close(again, texts.logps)
    assert math.isfinite(texts.logps.sum().item())
