"""The losses against their plain forms."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptForTokenClassification
from hf_gpt.models.loss_hf_gpt import classification_loss, linear_cross_entropy


def plain_loss(hidden, weight, labels, scale=None, softcap=None, items=None):
    logits = nn.functional.linear(hidden, weight).float()
    if scale is not None:
        logits = logits * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    reduction = "mean" if items is None else "sum"
    loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction=reduction)
    return loss if items is None else loss / items


@pytest.mark.parametrize("items", [None, 40, torch.tensor(40)])
@pytest.mark.parametrize(("scale", "softcap"), [(None, None), (0.3, None), (None, 5.0), (2.0, 3.0)])
@pytest.mark.parametrize("chunk_rows", [1, 7, 64])
def test_chunked_loss_and_gradients_equal_plain(scale, softcap, items, chunk_rows):
    hidden = torch.randn(3, 11, 16, requires_grad=True)
    weight = torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(0, 50, (3, 11))
    labels[0, :5] = -100
    expected = plain_loss(hidden, weight, labels, scale, softcap, items)
    expected_gradients = torch.autograd.grad(expected * 3, (hidden, weight))
    actual = linear_cross_entropy(
        hidden,
        weight,
        labels,
        num_items_in_batch=items,
        logit_scale=scale,
        softcap=softcap,
        chunk_rows=chunk_rows,
    )
    gradients = torch.autograd.grad(actual * 3, (hidden, weight))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0.0, atol=1e-6)


def test_chunked_loss_passes_gradcheck_in_double():
    hidden = torch.randn(5, 6, dtype=torch.double, requires_grad=True)
    weight = torch.randn(9, 6, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([1, 8, -100, 0, 3])
    expected = plain_loss(hidden, weight, labels, softcap=4.0)
    actual = linear_cross_entropy(hidden, weight, labels, softcap=4.0, chunk_rows=2)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(actual, (hidden, weight)), wanted, rtol=1e-5, atol=1e-6)


def test_chunked_loss_gives_its_gradients_once():
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.randint(0, 7, (5,)))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="chunked_loss = 'never'"):
        loss.backward()


def test_chunked_loss_under_autocast_and_in_bf16():
    hidden = torch.randn(32, 16, requires_grad=True)
    weight = torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(0, 50, (32,))
    expected = plain_loss(hidden, weight, labels)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = linear_cross_entropy(hidden, weight, labels, chunk_rows=5)
    half = linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), labels, chunk_rows=5)
    assert autocast.dtype == half.dtype == torch.float32
    for actual in (autocast, half):
        torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)
        gradients = torch.autograd.grad(actual, (hidden, weight))
        assert [g.dtype for g in gradients] == [torch.float32, torch.float32]
        wanted = torch.autograd.grad(expected, (hidden, weight), retain_graph=True)
        for gradient, want in zip(gradients, wanted, strict=True):
            assert (gradient - want).norm() < 2e-2 * want.norm()


def test_chunked_loss_without_gradients_and_frozen_weight():
    hidden, weight = torch.randn(8, 4, requires_grad=True), torch.randn(10, 4)
    labels = torch.randint(0, 10, (8,))
    with torch.no_grad():
        value = linear_cross_entropy(hidden, weight, labels)
    assert not value.requires_grad
    loss = linear_cross_entropy(hidden, weight, labels)
    (gradient,) = torch.autograd.grad(loss, hidden)
    (wanted,) = torch.autograd.grad(plain_loss(hidden, weight, labels), hidden)
    torch.testing.assert_close(gradient, wanted, rtol=0.0, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return output


def model_with_large_vocabulary(**options):
    config = HfGptConfig(
        vocab_size=20000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=1024
    )
    config.update(options)
    return HfGptForCausalLM(config).train()


def test_training_never_holds_all_logits():
    model = model_with_large_vocabulary()
    ids = torch.randint(0, 20000, (4, 1024))
    with LargestTensor() as largest:
        output = model(ids, labels=ids, skip_logits="auto")
        output.loss.backward()
    assert output.logits is None
    assert largest.numel < ids.numel() * 20000 / 4
    model.config.chunked_loss = "never"
    full = model(ids, labels=ids, skip_logits="auto")
    assert full.logits.shape == (4, 1024, 20000)
    torch.testing.assert_close(output.loss, full.loss, rtol=1e-6, atol=1e-6)


def test_chunks_are_switched_by_size_mode_and_request():
    model = HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64))
    ids = torch.randint(0, 64, (2, 8))
    assert model.train()(ids, labels=ids).logits is not None
    assert model(ids, labels=ids, skip_logits="auto").logits is not None
    model.config.chunked_loss = "always"
    assert model(ids, labels=ids).logits is None
    assert model(ids, labels=ids, skip_logits=False).logits is not None
    assert model(ids).logits is not None
    assert model.eval()(ids, labels=ids).logits is not None
    assert model(ids, labels=ids, skip_logits=True).logits is None


def test_own_loss_function_is_used():
    model = HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64, chunked_loss="always")).train()
    model.loss_function = lambda logits, labels, **kwargs: logits.sum() * 0 + 7
    ids = torch.randint(0, 64, (2, 8))
    assert model(ids, labels=ids).loss.item() == 7


@pytest.mark.parametrize("chunked_loss", ["always", "never"])
def test_shift_labels_are_taken_as_they_are(chunked_loss):
    """They are other targets than the labels, so that a loss which reads the labels is another number."""
    model = HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=64, chunked_loss=chunked_loss)).train()
    ids = torch.randint(0, 64, (2, 8))
    targets = torch.randint(0, 64, (2, 8))
    targets[0, :3] = -100
    logits = model(ids).logits.float()
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert abs(expected.item() - model(ids, labels=ids).loss.item()) > 1e-4
    torch.testing.assert_close(model(ids, labels=ids, shift_labels=targets).loss, expected)
    torch.testing.assert_close(model(ids, shift_labels=targets).loss, expected)


def test_discriminator_loss_is_binary_cross_entropy():
    logits = torch.tensor([[0.5], [-2.0], [3.0]])
    labels = torch.tensor([1, 0, 1])
    d = torch.sigmoid(logits.squeeze(1))
    expected = -(d[0].log() + (1 - d[1]).log() + d[2].log()) / 3
    torch.testing.assert_close(classification_loss(logits, labels), expected)
    torch.testing.assert_close(classification_loss(logits, labels[:, None]), expected)
    smooth = classification_loss(logits, torch.tensor([0.9, 0.0, 0.9]))
    assert smooth > expected


def test_ignored_labels_do_not_count():
    logits = torch.randn(4, 6, 1)
    labels = torch.randint(0, 2, (4, 6)).float()
    labels[:, 3:] = -100
    torch.testing.assert_close(classification_loss(logits, labels), classification_loss(logits[:, :3], labels[:, :3]))


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels"),
    [
        (1, None, torch.tensor([1, 0, 1, 1])),
        (1, "regression", torch.tensor([0.3, 2.0, -1.0, 4.0])),
        (3, None, torch.tensor([0, 2, 1, 1])),
        (3, "multi_label_classification", torch.randint(0, 2, (4, 3)).float()),
    ],
)
def test_sequence_head_adds_up_over_micro_batches(num_labels, problem_type, labels):
    config = HfGptConfig.preset("nano", vocab_size=64, num_labels=num_labels, problem_type=problem_type)
    model = HfGptForSequenceClassification(config)
    ids = torch.randint(1, 64, (4, 7))
    whole = model(ids, labels=labels).loss
    parts = sum(model(ids[i : i + 2], labels=labels[i : i + 2], num_items_in_batch=labels.numel()).loss for i in (0, 2))
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


def test_token_head_scores_every_prefix():
    model = HfGptForTokenClassification(
        HfGptConfig.preset("nano", vocab_size=64, num_labels=1, output_projection_init="normal")
    ).eval()
    ids = torch.randint(1, 64, (2, 9))
    scores = model(ids).logits
    assert scores.shape == (2, 9, 1)
    torch.testing.assert_close(model(ids[:, :4]).logits, scores[:, :4], rtol=0.0, atol=1e-5)
    labels = torch.ones(2, 9)
    labels[:, 5:] = -100
    expected = -nn.functional.logsigmoid(scores[:, :5]).mean()
    torch.testing.assert_close(model(ids, labels=labels).loss, expected)


@pytest.mark.parametrize("kind", ["decoder", "lstm", "encoder-decoder", "adapter", "compiled"])
def test_logits_are_returned_unless_asked_not_to(kind, monkeypatch):
    from hf_gpt import HfGptForConditionalGeneration, HfGptSeq2SeqConfig, HfLstmConfig, HfLstmForCausalLM
    from hf_gpt.models import language_head_hf_gpt

    # Any size is a large one.
    monkeypatch.setattr(language_head_hf_gpt, "CHUNKED_LOSS_ELEMENTS", 0)
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "initializer_range": 0.2}
    heads = {"num_attention_heads": 2}
    torch.manual_seed(0)
    if kind == "lstm":
        model = HfLstmForCausalLM(HfLstmConfig(**sizes, num_decoder_layers=0))
    elif kind == "encoder-decoder":
        model = HfGptForConditionalGeneration(HfGptSeq2SeqConfig(**sizes, **heads, bos_token_id=1))
    else:
        model = HfGptForCausalLM(HfGptConfig(**sizes, **heads))
    if kind == "adapter":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    if kind == "compiled":
        model = torch.compile(model, backend="eager")
    ids = torch.randint(0, 30, (3, 7))
    model.train()
    plain = model(input_ids=ids, labels=ids)
    assert plain.logits.shape == (3, 7, 30)
    for asked in ("auto", True):
        output = model(input_ids=ids, labels=ids, skip_logits=asked)
        assert output.logits is None
        torch.testing.assert_close(output.loss, plain.loss, rtol=1e-5, atol=1e-6)
    target = {"decoder_input_ids": ids} if kind == "encoder-decoder" else {}
    assert model(input_ids=ids, skip_logits=True, **target).logits is not None
