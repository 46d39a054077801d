"""What a training run needs before it is started: parameters, FLOPs, memory per device, days and cost.

All formulas of `hf-gpt plan` are here, each with where it comes from. They describe HfGpt models trained by
`HfGptTrainer`: parameters and FLOPs are exact counts of the modules and their matrix products, memory is that of the
tensors that PyTorch keeps. The tests hold them against real models.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from hf_gpt.errors import ConfigError, did_you_mean


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from hf_gpt.models.configuration_hf_gpt import HfGptConfig


GIB = 2**30

# CUDA's context, cuBLAS and NCCL workspaces. They are outside the tensors that the formulas count.
RUNTIME_BYTES = 1.5 * GIB

# Model FLOPs utilisation that is assumed: dense models of 0.1 to 400 B report 0.38 to 0.46 (PaLM, arXiv 2204.02311,
# table 3; Llama 3, arXiv 2407.21783, table 4). Small models and small batches reach less.
ASSUMED_MFU = 0.4

# Tokens for each parameter where a plan names no number of tokens (Chinchilla, arXiv 2203.15556, table 3).
TOKENS_PER_PARAMETER = 20

# Logits held at one time by the chunked loss, as `CHUNK_ELEMENTS` in models/loss_hf_gpt.py.
LOSS_CHUNK_ELEMENTS = 2**23

Sharding = Literal["ddp", "zero1", "zero2", "zero3", "fsdp2", "tp"]
SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        peak_flops: Dense bfloat16 matrix products per second, of its data sheet.
        memory: Bytes of memory.
        price: Assumed US dollars for an hour; markets differ by a factor of three, so give your own.
    """

    peak_flops: float
    memory: float
    price: float


# Data sheets of NVIDIA and AMD, without sparsity.
GPUS = {
    "b200": Gpu(2250e12, 180e9, 5.00),
    "h200": Gpu(989e12, 141e9, 3.50),
    "h100": Gpu(989e12, 80e9, 2.50),
    "a100": Gpu(312e12, 80e9, 1.60),
    "a100-40gb": Gpu(312e12, 40e9, 1.30),
    "mi300x": Gpu(1307e12, 192e9, 2.50),
    "l40s": Gpu(362e12, 48e9, 1.00),
    "l4": Gpu(121e12, 24e9, 0.60),
    "a10g": Gpu(70e12, 24e9, 0.75),
    "rtx4090": Gpu(165e12, 24e9, 0.40),
}


def find_gpu(name: str) -> Gpu:
    """The GPU of that name; raises `ConfigError` where the table has none."""
    if name.lower() not in GPUS:
        raise ConfigError(
            f"--gpu: unknown GPU {name!r}{did_you_mean(name.lower(), list(GPUS))} Known: {', '.join(GPUS)}. Describe "
            "another by --peak_tflops, --memory_gb and --price."
        )
    return GPUS[name.lower()]


# Parameters


@dataclass(frozen=True)
class Parameters:
    """Parameters by role, as `muon_adamw.parameter_roles` has them.

    Attributes:
        embedding: Token and position embeddings, and a head tied to them.
        head: The head's own matrix; 0 if it is tied.
        hidden: Weight matrices of the blocks, which Muon trains.
        vectors: Norms and biases.
        block: All parameters of one block.
    """

    embedding: int
    head: int
    hidden: int
    vectors: int
    block: int

    @property
    def total(self) -> int:
        return self.embedding + self.head + self.hidden + self.vectors


def count_parameters(config: "HfGptConfig") -> Parameters:
    """Exact number of parameters of `HfGptForCausalLM`."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    queries, keys = _attention_sizes(config)
    up_projections = 2 if config.is_gated_act else 1
    matrices = width * (2 * queries + 2 * keys) + (up_projections + 1) * width * inner
    norm = width * (2 if config.norm_type == "layernorm" and config.norm_bias else 1)
    vectors = 2 * norm
    vectors += 2 * config.head_dim if config.use_qk_norm else 0
    vectors += queries + 2 * keys if config.attention_bias else 0
    vectors += width if config.attention_out_bias else 0
    vectors += up_projections * inner + width if config.mlp_bias else 0
    positions = config.max_position_embeddings if config.position_embedding_type == "learned" else 0
    return Parameters(
        embedding=(config.vocab_size + positions) * width,
        head=0 if config.tie_word_embeddings else config.vocab_size * width,
        hidden=layers * matrices,
        vectors=layers * vectors + norm,
        block=matrices + vectors,
    )


def _attention_sizes(config: "HfGptConfig") -> tuple[int, int]:
    """Widths of the queries and of the keys."""
    return config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim


# FLOPs


def forward_flops_per_token(config: "HfGptConfig", max_length: int) -> int:
    """FLOPs of the matrix products in a forward pass, for each token of a row of `max_length`.

    Two for each weight that a token is multiplied with (the embedding is a look-up, the tied head is not), and
    `4 * max_length * width` for the scores and the weighted sum of each attention. Attention counts in full though half
    of it is masked, as PaLM counts it (arXiv 2204.02311, appendix B); norms and activations do not count.
    """
    weights = count_parameters(config).hidden + config.vocab_size * config.hidden_size
    attention = 4 * max_length * _attention_sizes(config)[0] * config.num_hidden_layers
    return 2 * weights + attention


def training_flops_per_token(config: "HfGptConfig", max_length: int, *, gradient_checkpointing: bool = False) -> int:
    """FLOPs of forward and backward pass for each token: three times the forward pass (6ND + attention).

    With gradient checkpointing the blocks run forward twice, but for their last product, whose result nothing needs;
    what that adds is work of the hardware, not of the model.
    """
    forward = forward_flops_per_token(config, max_length)
    head = 2 * config.vocab_size * config.hidden_size
    last = 2 * config.hidden_size * config.intermediate_size * config.num_hidden_layers
    return 3 * forward + (forward - head - last if gradient_checkpointing else 0)


def count_elements(parameters: "Iterable[torch.nn.Parameter]") -> int:
    """Number of weights; those in shards of DeepSpeed ZeRO-3, which themselves look empty, count whole."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in parameters)


def model_flops_per_token(model: "PreTrainedModel", max_length: int) -> int:
    """FLOPs of forward and backward pass for each token of a row, of any model: the yardstick of MFU in the logs.

    For our causal models `training_flops_per_token`, for others `6 N + 12 * layers * width * max_length` (arXiv
    2204.02311, appendix B), N being all parameters without embeddings that are only looked up in.
    """
    config = model.config.get_text_config()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if config.model_type == "hf_gpt" and head is not None:
        return training_flops_per_token(config, max_length)
    looked_up = {id(parameter): parameter for parameter in embeddings.parameters()}
    tied = head is not None and any(id(parameter) in looked_up for parameter in head.parameters())
    weights = count_elements(model.parameters()) - (0 if tied else count_elements(looked_up.values()))
    attention = 12 * getattr(config, "num_hidden_layers", 0) * getattr(config, "hidden_size", 0) * max_length
    return 6 * weights + attention


# Memory. Weights, gradients and optimizer state are float32, 4 bytes a number; what matrix products read has
# `compute_bytes`, 2 under autocast in bfloat16.


def optimizer_bytes(parameters: Parameters, optimizer: str) -> int:
    """Bytes of optimizer state: AdamW keeps two numbers for a parameter, Muon one for those it trains.

    The step counts, 4 bytes for each of AdamW's tensors, are left out.
    """
    return 8 * parameters.total - (4 * parameters.hidden if optimizer == "muon" else 0)


def activation_bytes_per_token(config: "HfGptConfig", compute_bytes: int) -> int:
    """Bytes that autograd keeps of one block for each token, with an attention that keeps no scores (SDPA, flash).

    Counted tensor by tensor as in arXiv 2205.05198, section 4.1, for this block.
    """
    width, inner, compute = config.hidden_size, config.intermediate_size, compute_bytes
    queries, keys = _attention_sizes(config)
    # An RMSNorm written out keeps its input and the normalised input; PyTorch's LayerNorm its input.
    norms = 2 * width * 4 * (2 if config.norm_type == "rmsnorm" else 1)
    linear_inputs = 2 * width * compute
    qk_norm = (queries + keys) * (4 + compute) if config.use_qk_norm else 0
    # Grouped keys and values are repeated for their queries before the attention.
    attention = 4 * queries * compute + 4 * config.num_attention_heads
    mlp = inner * compute * (4 if config.is_gated_act else 2)
    dropout = 2 * width if config.hidden_dropout else 0
    return norms + linear_inputs + qk_norm + attention + mlp + dropout


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they are for.

    Attributes:
        weights: Parameters, with their copies in the dtype of computation, and those gathered for a moment.
        gradients: Gradients, with the buckets of DDP.
        optimizer: State of the optimizer, with master weights where the scheme has them.
        activations: What autograd keeps.
        loss: Logits, or the chunks and the gradient of the head's weight.
        runtime: Outside of tensors.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    runtime: float = RUNTIME_BYTES

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.loss + self.runtime


def memory_per_device(
    config: "HfGptConfig",
    *,
    sharding: Sharding,
    devices: int,
    batch_size: int,
    max_length: int,
    optimizer: str = "muon",
    compute_bytes: int = 2,
    gradient_checkpointing: bool = False,
    chunked_loss: bool = True,
    tensor_parallel_size: int = 1,
) -> Memory:
    """Most bytes on one device during a step.

    Args:
        config: The model.
        sharding: How the state is spread: `ddp` nothing; `zero1`, `zero2`, `zero3` as arXiv 1910.02054, section 5, with
            DeepSpeed's bfloat16 weights and gradients beside float32 masters; `fsdp2` float32 shards that are gathered
            block by block (arXiv 2304.11277); `tp` the matrices of each block.
        devices: Devices in all; under `tp`, `tensor_parallel_size` of them share one block's matrices.
        batch_size: Rows of `max_length` tokens on each device in one forward pass.
        optimizer: `"muon"` or `"adamw"`, which it always is under ZeRO.
        compute_bytes: Of an entry of what matrix products read: 2 in bfloat16, 4 in float32.
        gradient_checkpointing: Keep only the input of each block, and one block at a time.
        chunked_loss: Never hold the logits of all tokens.
    """
    parameters, tokens = count_parameters(config), batch_size * max_length
    count, layers = parameters.total, config.num_hidden_layers
    # DeepSpeed trains by AdamW alone.
    state = optimizer_bytes(parameters, "adamw" if sharding.startswith("zero") else optimizer)
    ways = tensor_parallel_size if sharding == "tp" else 1
    is_cast = compute_bytes < 4
    casts = compute_bytes * (parameters.hidden + config.vocab_size * config.hidden_size) * is_cast
    # FSDP and ZeRO-3 hold one block in use, the next one on its way, and the embeddings.
    gathered = 2 * parameters.block + parameters.embedding + parameters.head

    if sharding == "ddp":
        weights, gradients = 4 * count + casts, 4 * count
        # DistributedDataParallel copies gradients into buckets, unless gradient_as_bucket_view is set.
        gradients += 4 * count if devices > 1 else 0
    elif sharding == "fsdp2":
        weights = 4 * count / devices + compute_bytes * gathered
        gradients = 4 * count / devices + compute_bytes * gathered
    elif sharding == "tp":
        rest = count - parameters.hidden - parameters.head
        own = rest + (parameters.hidden + parameters.head) / ways
        weights, gradients, state = 4 * own + casts / ways, 4 * own, state * own / count
        gradients += 4 * own if devices > ways else 0
    else:
        weights = compute_bytes * (count / devices + gathered if sharding == "zero3" else count)
        gradients = compute_bytes * (count if sharding == "zero1" else count / devices + gathered)
        # The master weights.
        state += 4 * count * is_cast
    if sharding not in ("ddp", "tp"):
        state = state / devices

    block = activation_bytes_per_token(config, compute_bytes)
    # The norms' part is whole on each device under tensor parallelism, the rest is shared.
    shared = block - (2 * config.hidden_size * (2 * 4 + compute_bytes))
    block -= shared * (1 - 1 / ways)
    kept = layers * config.hidden_size * 4 + block if gradient_checkpointing else layers * block
    last = config.hidden_size * (2 * 4 + 2 * compute_bytes)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=state,
        activations=tokens * (kept + last),
        loss=_loss_bytes(config, tokens, compute_bytes, chunked_loss),
    )


def _loss_bytes(config: "HfGptConfig", tokens: int, compute_bytes: int, chunked: bool) -> float:
    logits = tokens * config.vocab_size
    if not chunked:
        # The logits, their log-softmax, and its gradient or float32 copy.
        return logits * (compute_bytes + 8)
    chunk = min(logits, max(LOSS_CHUNK_ELEMENTS, 64 * config.vocab_size))
    return 4 * config.vocab_size * config.hidden_size + chunk * (2 * compute_bytes + 4)


# Time and cost


@dataclass(frozen=True)
class Duration:
    """Model FLOPs of a run, its wall-clock time, the hours of all GPUs together, and the cost in US dollars.

    Communication is part of the assumed utilisation.
    """

    flops: float
    seconds: float
    gpu_hours: float
    cost: float


def run_duration(
    config: "HfGptConfig", *, tokens: float, max_length: int, gpu: Gpu, gpus: int, mfu: float = ASSUMED_MFU
) -> Duration:
    """Time and cost of training on `tokens` at a model FLOPs utilisation of `mfu` (0 to 1)."""
    flops = training_flops_per_token(config, max_length) * tokens
    seconds = flops / (gpu.peak_flops * gpus * mfu)
    gpu_hours = seconds * gpus / 3600
    return Duration(flops, seconds, gpu_hours, gpu_hours * gpu.price)
