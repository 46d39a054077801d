"""Small models whose distributions over all texts are worked out exactly."""

import itertools

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM


VOCAB, LENGTH, BEGIN, EOS, PAD = 4, 3, 3, 2, 0


def make_lm(seed: int, model_type: str = "hf_gpt", spread: float = 0.35, **options):
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "pad_token_id": PAD,
        "bos_token_id": BEGIN,
        "eos_token_id": EOS,
        "initializer_range": spread,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**settings, **options})).eval()


def log_probability(
    model, sequences: torch.Tensor, attention_mask: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """log-probability of the tokens after the first, of texts padded on either side."""
    rows = []
    for ids, mask in zip(sequences, attention_mask, strict=True):
        text = ids[mask.bool()][None]
        with torch.no_grad():
            log_probs = (model(text).logits[:, :-1] / temperature).log_softmax(-1)
        rows.append(log_probs.gather(2, text[:, 1:, None])[0, :, 0].sum())
    return torch.stack(rows)


def all_texts() -> list[tuple[int, ...]]:
    """Every completion: up to LENGTH tokens, of which an EOS is the last."""
    texts = []
    for number in range(1, LENGTH + 1):
        for tokens in itertools.product(range(VOCAB), repeat=number):
            if EOS not in tokens[:-1] and (number == LENGTH or tokens[-1] == EOS):
                texts.append(tokens)
    return texts


def probabilities(model, temperature: float = 1.0) -> torch.Tensor:
    """Of all texts, with the logits divided by the temperature."""
    texts = [torch.tensor((BEGIN, *tokens)) for tokens in all_texts()]
    logs = [log_probability(model, text[None], torch.ones_like(text)[None], temperature) for text in texts]
    total = torch.cat(logs).exp()
    assert total.sum().item() == pytest.approx(1, abs=1e-4)
    return total


def counts(sequences: torch.Tensor, start: int = 1, weights: torch.Tensor | None = None) -> torch.Tensor:
    """How often each text is there, or its sum of weights."""
    positions = {tokens: index for index, tokens in enumerate(all_texts())}
    found = torch.zeros(len(positions))
    weights = torch.ones(len(sequences)) if weights is None else weights
    for row, weight in zip(sequences[:, start:].tolist(), weights, strict=True):
        tokens = row[: row.index(EOS) + 1] if EOS in row else row
        found[positions[tuple(tokens)]] += weight
    return found


def chi_square_per_degree(observed: torch.Tensor, expected: torch.Tensor) -> float:
    """Statistic over its degrees of freedom, cells below 5 expected counts taken together; about 1 if they agree."""
    expected = expected * observed.sum()
    small = expected < 5
    observed = torch.cat([observed[~small], observed[small].sum()[None]])
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    return ((observed - expected).square() / expected).sum().item() / (len(expected) - 1)


def total_variation(observed: torch.Tensor, expected: torch.Tensor) -> float:
    return 0.5 * (observed / observed.sum() - expected).abs().sum().item()


def make_pair():
    """A generator, the data as another model, and the exact log-ratio of the two as discriminator."""
    # A text may hold any token, so none is left for padding alone.
    generator, data = make_lm(0, pad_token_id=EOS), make_lm(1, pad_token_id=EOS)
    cache = {}

    def log_ratio(sequences, attention_mask):
        values = []
        for ids, mask in zip(sequences, attention_mask, strict=True):
            text = tuple(ids[mask.bool()].tolist())
            if text not in cache:
                row = torch.tensor([text])
                ones = torch.ones_like(row)
                cache[text] = (log_probability(data, row, ones) - log_probability(generator, row, ones)).item()
            values.append(cache[text])
        return torch.tensor(values)

    return generator, data, log_ratio
