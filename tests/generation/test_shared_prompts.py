"""Groups of completions read their prompt once: log-probabilities, scores and gradients are those of whole texts."""

import pytest
import torch

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification
from hf_gpt.generation.sampling import shared_prompts
from hf_gpt.generation.scoring.discriminator import discriminator_logits
from hf_gpt.generation.scoring.logprobs import completion_logps


OPTIONS = {
    "plain": {},
    "grouped": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "learned": {"position_embedding_type": "learned", "norm_type": "layernorm", "norm_bias": True},
    "sliding": {"sliding_window": 3, "layer_types": ["full_attention", "sliding_attention"]},
    "capped": {"final_logit_softcapping": 5.0, "logit_scale": 0.5},
}


def build(model_class, **options):
    config = HfGptConfig.preset(
        "nano",
        vocab_size=64,
        num_labels=1,
        pad_token_id=0,
        output_projection_init="normal",
        num_hidden_layers=2,
        **options,
    )
    return model_class(config).double()


def texts(ragged):
    """Two prompts with three completions each, padded at the right."""
    lengths, completed = (torch.tensor([5, 3]), torch.tensor([4, 1, 3, 2, 6, 6])) if ragged else ([5, 5], [6] * 6)
    prompt_length = torch.as_tensor(lengths).repeat_interleave(3)
    total = prompt_length + torch.as_tensor(completed)
    positions = torch.arange(int(total.max()))
    ids = torch.randint(1, 64, (6, len(positions)))
    prompts = torch.randint(1, 64, (2, 5)).repeat_interleave(3, 0)
    ids[:, :5] = torch.where(positions[:5] < prompt_length[:, None], prompts, ids[:, :5])
    mask = (positions < total[:, None]).long()
    return ids * mask, mask, prompt_length


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def tokens_read(model, run):
    """Tokens that pass through the first layer."""
    seen = []
    handle = model.model.layers[0].register_forward_hook(
        lambda module, args, output: seen.append(output[..., 0].numel())
    )
    run()
    handle.remove()
    return sum(seen)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_values_and_gradients_are_those_of_whole_texts(kind, options, ragged, monkeypatch):
    model = build(HfGptForCausalLM if kind == "generator" else HfGptForSequenceClassification, **options)
    ids, mask, prompt_length = texts(ragged)
    width = int((mask.sum(1) - prompt_length).max())
    positions = shared_prompts.completion_positions(prompt_length, width, ids.shape[1])
    counted = torch.arange(width) < (mask.sum(1) - prompt_length)[:, None]

    def run():
        model.zero_grad()
        if kind == "generator":
            found = completion_logps(model, ids, mask, prompt_length, ids.gather(1, positions))[counted]
        else:
            found = discriminator_logits(model, ids, mask, prompt_length)
        (found * torch.linspace(-1, 1, len(found))).sum().backward()
        return found.detach(), gradients(model)

    found = run()
    assert tokens_read(model, run) < mask.numel() - 6
    monkeypatch.setattr(shared_prompts, "_can_share", lambda *args: False)
    assert tokens_read(model, run) == mask.numel()
    torch.testing.assert_close(found, run(), rtol=1e-5, atol=1e-6)


def test_scores_of_all_tokens_read_whole_texts():
    model, (ids, mask, prompt_length) = build(HfGptForSequenceClassification, classifier_pooling="mean"), texts(True)
    found = discriminator_logits(model, ids, mask, prompt_length)
    torch.testing.assert_close(found, discriminator_logits(model, ids, mask))


@pytest.mark.parametrize("change", ["dropout", "checkpointing", "hook", "alone"])
def test_whole_texts_are_read_where_prompts_cannot_be_shared(change):
    model = build(HfGptForCausalLM, attention_dropout=0.1 if change == "dropout" else 0.0).train()
    ids, mask, prompt_length = texts(False)
    if change == "checkpointing":
        model.gradient_checkpointing_enable()
    if change == "hook":
        model.register_forward_hook(lambda module, args, output: None)
    if change == "alone":
        ids[:, 0] = torch.arange(1, 7)
    read = tokens_read(model, lambda: completion_logps(model, ids, mask, prompt_length, ids[:, 5:]))
    assert read == mask.numel()
    if change == "dropout":
        model.eval()
        assert tokens_read(model, lambda: completion_logps(model, ids, mask, prompt_length, ids[:, 5:])) < read


def test_a_single_token_needs_the_prompts_alone():
    model = build(HfGptForCausalLM)
    ids, mask, prompt_length = texts(False)
    run = lambda: completion_logps(model, ids[:, :6], mask[:, :6], prompt_length, ids[:, 5:6])  # noqa: E731
    assert tokens_read(model, run) == 10
    expected = model(ids[:, :5]).logits[:, -1].log_softmax(-1).gather(1, ids[:, 5:6])
    torch.testing.assert_close(run(), expected)
