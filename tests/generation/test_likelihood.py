"""Log-probabilities of completions against the logits of whole rows, by every way in which heads are asked."""

import pytest
import torch

from hf_gpt.generation.scoring import logprobs as likelihood
from hf_gpt.generation.scoring.logprobs import completion_logits, completion_positions, join, token_logps


MODELS = ["hf_gpt", "gpt2", "llama", "hf_lstm"]


def rows(prompt_lengths, completion_lengths):
    """Sequences, mask and lengths of prompts, as `completion_logits` takes them."""
    prompts, completions = torch.randint(3, 20, (3, 6)), torch.randint(3, 20, (3, 7))
    masks = [
        torch.arange(width) < torch.tensor(lengths)[:, None]
        for width, lengths in ((6, prompt_lengths), (7, completion_lengths))
    ]
    sequences, mask = join(prompts, masks[0], completions, masks[1], pad_token_id=0)
    return sequences, mask, torch.tensor(prompt_lengths), masks[1]


def plainly(model, sequences, mask, prompt_length, count):
    logits = model(input_ids=sequences, attention_mask=mask).logits[:, -sequences.shape[1] :]
    positions = completion_positions(prompt_length, count, sequences.shape[1]) - 1
    return logits[torch.arange(len(positions))[:, None], positions]


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize(
    "lengths", [([6, 6, 6], [7, 7, 7]), ([6, 6, 6], [7, 2, 4]), ([1, 6, 3], [7, 2, 4]), ([2, 6, 3], [7, 6, 4])]
)
def test_logits_are_those_of_whole_rows(make_generator, model_type, lengths):
    model = make_generator(model_type)
    sequences, mask, prompt_length, inside = rows(*lengths)
    found = completion_logits(model, sequences, mask, prompt_length, 7)
    expected = plainly(model, sequences, mask, prompt_length, 7)
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-5)
    weight, grad = model.get_input_embeddings().weight, torch.randn(int(inside.sum()), 20)
    grads = [torch.autograd.grad(logits[inside], weight, grad)[0] for logits in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5 * grads[1].abs().max().item())


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("prompt_lengths", [[6, 6, 6], [2, 6, 3]])
def test_heads_are_asked_for_the_completions_alone(make_generator, model_type, prompt_lengths):
    model = make_generator(model_type)
    sizes = []
    model.lm_head.register_forward_hook(lambda *given: sizes.append(given[-1].shape[1]))
    sequences, mask, prompt_length, _ = rows(prompt_lengths, [7, 7, 7])
    assert completion_logits(model, sequences, mask, prompt_length, 7).shape == (3, 7, 20)
    # A head that keeps the same places in all rows keeps those of the longest prompt, too.
    is_ours = model_type.startswith("hf_")
    assert sizes == [7 if is_ours else 7 + max(prompt_lengths) - min(prompt_lengths)]


@pytest.mark.parametrize("model_type", ["hf_gpt", "llama"])
@pytest.mark.parametrize("prompt_lengths", [[6, 6, 6], [2, 6, 3]])
def test_virtual_tokens_of_an_adapter_are_passed_over(make_generator, model_type, prompt_lengths):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_layers=2, token_dim=16, num_attention_heads=2
    )
    model = peft.get_peft_model(make_generator(model_type), config)
    sequences, mask, prompt_length, inside = rows(prompt_lengths, [7, 2, 4])
    found, expected = (f(model, sequences, mask, prompt_length, 7) for f in (completion_logits, plainly))
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [8, 2**18])
def test_log_probabilities_and_their_gradients_are_those_of_log_softmax(monkeypatch, chunk):
    monkeypatch.setattr(likelihood, "_CHUNK_ELEMENTS", chunk)
    logits, tokens = torch.randn(3, 5, 7) * 5, torch.randint(7, (3, 5))
    # What a row knows to be impossible.
    logits[0, :, 1:3], tokens[0] = -torch.inf, 0
    grad = torch.randn(3, 5)
    results = []
    for function in (token_logps, lambda x, y: x.log_softmax(-1).gather(-1, y[..., None])[..., 0]):
        leaf = logits.clone().requires_grad_()
        found = function(leaf, tokens)
        results.append((found, torch.autograd.grad(found, leaf, grad)[0]))
    torch.testing.assert_close(*results)
    with torch.no_grad():
        assert torch.equal(token_logps(logits, tokens), results[0][0])


def test_log_probabilities_have_second_derivatives_and_keep_the_type_of_logits():
    logits, tokens = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True), torch.randint(5, (2, 3))
    first, plain = (
        torch.autograd.grad(logps.square().sum(), logits, create_graph=True)[0]
        for logps in (token_logps(logits, tokens), logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0])
    )
    torch.testing.assert_close(first, plain, rtol=1e-5, atol=1e-5)
    seconds = [torch.autograd.grad(grad.square().sum(), logits)[0] for grad in (first, plain)]
    torch.testing.assert_close(*seconds, rtol=1e-5, atol=1e-5)
    halves = logits.detach().bfloat16().requires_grad_()
    logps = token_logps(halves, tokens)
    logps.sum().backward()
    assert logps.dtype == torch.float32 and halves.grad.dtype == torch.bfloat16
