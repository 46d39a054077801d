"""Losses of the HfGpt heads: cross-entropy straight from hidden states, and the classification losses."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable


# Logits held at one time by `linear_cross_entropy`: 32 MB in fp32.
CHUNK_ELEMENTS = 2**23
# On CPUs, whose products with few rows are slow: 128 MB in fp32, and the rows at which the products are quickest.
CPU_CHUNK_ELEMENTS, CPU_CHUNK_ROWS = 2**25, 664


class _LinearCrossEntropy(torch.autograd.Function):
    """
    Sum over rows of -log softmax(cap(scale * h W^T))[label] * row_weight, with the gradients worked out in the forward
    pass while a chunk's logits are at hand: the three matrix products of the plain form, and no fourth.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, row_weight, scale, softcap, chunk_rows, needs_grad):
        loss = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_grad and hidden.requires_grad else None
        # Summed over chunks in fp32, whatever the dtype of the weights.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_grad and ctx.needs_input_grad[1] else None
        for start in range(0, hidden.shape[0], chunk_rows):
            rows = slice(start, start + chunk_rows)
            logits = _matmul(hidden[rows], weight).float()
            if scale is not None:
                logits.mul_(scale)
            if softcap is not None:
                logits.div_(softcap).tanh_()
                squash = 1 - logits.square() if needs_grad else None
                logits.mul_(softcap)
            label = labels[rows].unsqueeze(1)
            # One pass of exponentials serves the loss and the gradient.
            logits.sub_(logits.amax(1, keepdim=True))
            label_logit = logits.gather(1, label).squeeze(1)
            exponentials = logits.exp_()
            total = exponentials.sum(1)
            loss += ((total.log() - label_logit) * row_weight[rows]).sum()
            if not needs_grad:
                continue

            grad = exponentials.mul_((row_weight[rows] / total).unsqueeze(1))
            grad.scatter_add_(1, label, -row_weight[rows].unsqueeze(1))
            if softcap is not None:
                grad.mul_(squash)
            if scale is not None:
                grad.mul_(scale)
            grad = grad.to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                if weight.dtype == torch.float32:
                    grad_weight.addmm_(grad.t(), hidden[rows])
                else:
                    grad_weight.add_(torch.mm(grad.t(), hidden[rows]))
        ctx.grad_hidden, ctx.grad_weight, ctx.weight_dtype = grad_hidden, grad_weight, weight.dtype
        ctx.is_spent = False
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        if ctx.is_spent:
            raise RuntimeError(
                "the loss in chunks gives its gradients once: call backward() on a sum of losses, or set "
                "config.chunked_loss = 'never'."
            )
        # Given away, not copied: the gradient of the head is the largest tensor there is.
        grad_hidden, grad_weight, ctx.is_spent = ctx.grad_hidden, ctx.grad_weight, True
        ctx.grad_hidden = ctx.grad_weight = None
        if grad_hidden is not None:
            grad_hidden.mul_(grad_loss)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(grad_loss).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None, None, None


def _matmul(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """
    hidden W^T, (rows, vocab_size). On CPUs in float32 it lies in memory the other way round: so many outputs of so few
    inputs take MKL two thirds of the time.
    """
    if hidden.device.type == "cpu" and hidden.dtype == torch.float32:
        return torch.mm(weight, hidden.t()).t()
    return torch.mm(hidden, weight.t())


def linear_cross_entropy(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | int | None = None,
    logit_scale: float | None = None,
    softcap: float | None = None,
    chunk_rows: int | None = None,
) -> torch.Tensor:
    """
    Cross-entropy of `softcap * tanh(logit_scale * hidden_states @ weight.T / softcap)` against `labels`, in chunks of
    rows, so that the logits of all tokens never exist at once. Same loss and gradients as the plain form.

    Args:
        hidden_states (`torch.Tensor` of shape `(..., hidden_size)`):
            Final hidden states.
        weight (`torch.Tensor` of shape `(vocab_size, hidden_size)`):
            Weight of the language-model head.
        labels (`torch.LongTensor` of shape `(...)`):
            The token that each position predicts (already shifted); `ignore_index` where there is none.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*):
            Divisor of the sum, so that accumulated micro-batches add up to the loss of the whole batch. Left out: the
            number of labels that count. Without a label the loss is 0.
        logit_scale, softcap (`float`, *optional*):
            Left out: 1, and no cap.
        chunk_rows (`int`, *optional*):
            Rows in a chunk. Left out: as many as `CHUNK_ELEMENTS` logits allow; on a CPU `CPU_CHUNK_ELEMENTS`, and at
            most `CPU_CHUNK_ROWS`.

    Returns:
        `torch.Tensor`: fp32 scalar, differentiable once with respect to `hidden_states` and `weight`.
    """
    labels = labels.reshape(-1).to(hidden_states.device)
    hidden_states = hidden_states.reshape(-1, hidden_states.shape[-1])
    device_type = hidden_states.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        hidden_states, weight = hidden_states.to(dtype), weight.to(dtype)
    else:
        weight = weight.to(hidden_states.dtype)

    valid = labels != ignore_index
    if num_items_in_batch is None:
        num_items_in_batch = valid.sum()
    elif torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(hidden_states.device)
    # Without any label the loss is 0, and so are its gradients. Shared among devices, a number may be below 1.
    num_items_in_batch = num_items_in_batch + (num_items_in_batch == 0)
    row_weight = valid.to(torch.float32) / num_items_in_batch
    labels = labels.masked_fill(~valid, 0)
    if device_type == "cpu" and not torch.compiler.is_compiling():
        # Rows without a label cost as much as the others. Elsewhere, counting them would hold up the host.
        counted = valid.nonzero().squeeze(1)
        if 0 < counted.numel() < valid.numel():
            hidden_states, labels, row_weight = hidden_states[counted], labels[counted], row_weight[counted]
    if chunk_rows is None:
        is_cpu = device_type == "cpu"
        elements, most = (CPU_CHUNK_ELEMENTS, CPU_CHUNK_ROWS) if is_cpu else (CHUNK_ELEMENTS, CHUNK_ELEMENTS)
        chunk_rows = min(most, max(64, elements // weight.shape[0]))
    with torch.autocast(device_type, enabled=False):
        return _LinearCrossEntropy.apply(
            hidden_states,
            weight,
            labels,
            row_weight,
            logit_scale,
            softcap,
            chunk_rows,
            torch.is_grad_enabled(),
        )


def chunked_causal_lm_loss(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor | None,
    shift_labels: torch.Tensor | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
    logit_scale: float | None = None,
    softcap: float | None = None,
    **kwargs,
) -> torch.Tensor:
    """
    The library's causal language-model loss by [`linear_cross_entropy`], with its arguments.

    Args:
        labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Tokens aligned with the input, shifted here; or give `shift_labels`, which are shifted already.
    """
    if shift_labels is None:
        shift_labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return linear_cross_entropy(
        hidden_states,
        weight,
        shift_labels,
        ignore_index=ignore_index,
        num_items_in_batch=num_items_in_batch,
        logit_scale=logit_scale,
        softcap=softcap,
    )


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    problem_type: str | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """
    Loss of the sequence and token heads.

    Args:
        logits (`torch.Tensor` of shape `(..., num_labels)`):
            Scores before sigmoid or softmax.
        labels (`torch.Tensor`):
            Shape `(...)` with class ids, or in [0, 1] (1 is real) when `num_labels` is 1; shape `(..., num_labels)`
            for several targets. Entries equal to `ignore_index` do not count.
        problem_type (`str`, *optional*):
            `"regression"`: squared error; `"multi_label_classification"`: binary cross-entropy of each label;
            `"single_label_classification"`: cross-entropy. Left out: binary cross-entropy for one label (the
            discriminator -y log D - (1 - y) log(1 - D), https://arxiv.org/abs/1406.2661), cross-entropy for integer
            labels, else binary cross-entropy of each label.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*):
            Divisor of the sum. Left out: the number of labels that count. Without a label the loss is 0.

    Returns:
        `torch.Tensor`: fp32 scalar.
    """
    num_labels = logits.shape[-1]
    labels = labels.to(logits.device)
    if problem_type is None and num_labels > 1:
        is_class_id = labels.dtype in (torch.long, torch.int)
        problem_type = "single_label_classification" if is_class_id else "multi_label_classification"

    logits = logits.float()
    if problem_type == "single_label_classification":
        labels = labels.reshape(-1).long()
        valid = labels != ignore_index
        losses = nn.functional.cross_entropy(
            logits.reshape(-1, num_labels), labels, ignore_index=ignore_index, reduction="none"
        )
    else:
        targets = labels.reshape(logits.shape).float()
        valid = targets != ignore_index
        targets = targets.masked_fill(~valid, 0)
        if problem_type == "regression":
            losses = nn.functional.mse_loss(logits, targets, reduction="none")
        else:
            losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        losses = losses.masked_fill(~valid, 0)
    if num_items_in_batch is None:
        num_items_in_batch = valid.sum()
    elif torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(losses.device)
    return losses.sum() / (num_items_in_batch + (num_items_in_batch == 0))


def question_answering_loss(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    start_positions: torch.Tensor,
    end_positions: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
    **kwargs,
) -> torch.Tensor:
    """
    Mean of the cross-entropies of where an answer starts and where it ends.

    Args:
        start_logits, end_logits (`torch.Tensor` of shape `(batch_size, sequence_length)`):
            Scores of each position.
        start_positions, end_positions (`torch.LongTensor` of shape `(batch_size,)` or `(batch_size, 1)`):
            The right one; a position past the input does not count.
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            0 at padding, where no answer can be, so that padding does not change the loss.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*):
            Divisor of each sum. Left out: the number of positions that count. Without one the loss is 0.

    Returns:
        `torch.Tensor`: fp32 scalar.
    """
    length, losses = start_logits.shape[1], []
    for logits, positions in ((start_logits, start_positions), (end_logits, end_positions)):
        logits, positions = logits.float(), positions.reshape(-1).to(logits.device).clamp(0, length)
        if attention_mask is not None and attention_mask.ndim == 2 and attention_mask.shape == logits.shape:
            logits = logits.masked_fill(attention_mask.to(logits.device) == 0, torch.finfo(logits.dtype).min)
        count = (positions != length).sum() if num_items_in_batch is None else num_items_in_batch
        count = count.to(logits.device) if torch.is_tensor(count) else count
        total = nn.functional.cross_entropy(logits, positions, ignore_index=length, reduction="sum")
        losses.append(total / (count + (count == 0)))
    return (losses[0] + losses[1]) / 2


def are_values(labels: torch.Tensor, ignore_index: int = -100) -> bool:
    """
    Whether targets of one label are values to regress: a float among them is no probability. Not seen by a compiler,
    for which it would depend on data.
    """
    if torch.compiler.is_compiling() or labels.device.type == "meta" or not labels.is_floating_point():
        return False
    return bool((((labels < 0) | (labels > 1)) & (labels != ignore_index)).any())


__all__ = [
    "are_values",
    "chunked_causal_lm_loss",
    "classification_loss",
    "linear_cross_entropy",
    "question_answering_loss",
]
