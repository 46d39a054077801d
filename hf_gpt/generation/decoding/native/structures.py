"""The structures and functions of `step.c` in ctypes."""

import ctypes
from typing import NamedTuple

import torch

from hf_gpt.generation.decoding.native import build


_int, _float, _pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p

TYPES = {"float32": 0, "bfloat16": 1, "int8": 2}
# As transformers names them.
ACTIVATIONS = {
    "relu": 0,
    "relu2": 1,
    "silu": 2,
    "swish": 2,
    "gelu": 3,
    "gelu_python": 3,
    "gelu_new": 4,
    "gelu_fast": 4,
    "gelu_pytorch_tanh": 4,
    "gelu_python_tanh": 4,
    "gelu_accurate": 4,
}


class Linear(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("weight", "scale", "offset", "bias")),
        *((name, _int) for name in ("outputs", "inputs", "type", "is_gated")),
    ]


class Packing(ctypes.Structure):
    _fields_ = [
        ("linear", ctypes.POINTER(Linear)),
        ("parts", _pointer * 3),
        ("part_rows", _int * 3),
        ("factors", _pointer),
        ("is_bfloat16", _int),
    ]


class Heads(ctypes.Structure):
    _fields_ = [
        *((name, _int) for name in ("num_queries", "num_keys", "head_dim", "capacity", "is_bfloat16")),
        ("scaling", _float),
        ("norm_eps", _float),
        ("use_qk_norm", _int),
        ("cos", _pointer),
        ("sin", _pointer),
    ]


class Cache(ctypes.Structure):
    _fields_ = [*((name, _pointer) for name in ("query_norm", "key_norm", "keys", "values")), ("window", _int)]


class Norm(ctypes.Structure):
    _fields_ = [("scale", _pointer), ("shift", _pointer)]


class Layer(ctypes.Structure):
    _fields_ = [
        ("attention_norm", Norm),
        ("mlp_norm", Norm),
        *((name, Linear) for name in ("qkv", "output", "up", "down")),
        ("cache", Cache),
    ]


class Decoder(ctypes.Structure):
    _fields_ = [
        *((name, _int) for name in ("hidden_size", "vocab_size", "num_positions", "num_layers", "activation")),
        *((name, _int) for name in ("is_layernorm", "is_bfloat16")),
        *((name, _float) for name in ("norm_eps", "logit_scale", "softcap")),
        ("embeddings", _pointer),
        ("positions", _pointer),
        ("norm", Norm),
        ("head", Linear),
        ("heads", Heads),
        ("layers", ctypes.POINTER(Layer)),
    ]


class Step(ctypes.Structure):
    _fields_ = [
        *((name, _int) for name in ("rows", "num_wanted", "is_prompt", "threads")),
        *((name, _pointer) for name in ("tokens", "slots", "positions", "wanted")),
        *((name, _pointer) for name in ("hidden", "wide", "found", "steps", "scales", "logits", "targets")),
        ("kept_rows", _int),
        ("kept", _pointer * 4),
    ]


class SampleRequest(ctypes.Structure):
    _fields_ = [
        ("logits", _pointer),
        ("vocab_size", _int),
        ("uniforms", _pointer),
        ("temperature", ctypes.c_double),
        ("tokens", _pointer),
        ("logps", _pointer),
        ("model_logps", _pointer),
        ("top_k", _int),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("work", _pointer),
        ("support", _pointer),
        ("rows", _int),
        ("pieces", _int),
    ]


class Draft(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("tokens", "runners_up", "gaps")),
        *((name, _int) for name in ("position", "most")),
        *((name, _float) for name in ("error", "trust", "least")),
    ]


class Native(NamedTuple):
    """The compiled functions.

    Attributes:
        lanes: Floats in a register; the tokens of a cache are a multiple of it.
        panel: Outputs that lie together in a packed weight.
        has_int8: Whether the processor multiplies int8.
        step: (Decoder, Step) -> 0, 1 for a token that is not in the vocabulary, 2 for a position that does not exist.
        draft: (Decoder, Step, Draft) -> the number of draft tokens, or the negative status of a step.
        pack: (Packing, threads).
        sample: (SampleRequest, threads).
        large_pages: (address, bytes) of memory that is read from one end to the other.
    """

    lanes: int
    panel: int
    has_int8: bool
    step: ctypes._CFuncPtr
    draft: ctypes._CFuncPtr
    pack: ctypes._CFuncPtr
    sample: ctypes._CFuncPtr
    large_pages: ctypes._CFuncPtr


_described: dict[int, Native | None] = {}


def native() -> Native | None:
    """The functions of `build.library` with their types; None without a library, or if its structures differ."""
    library = build.library()
    if library is None:
        return None
    if library._handle not in _described:
        _described[library._handle] = _describe(library)
    return _described[library._handle]


def _describe(library: ctypes.CDLL) -> Native | None:
    found = (_int * 9)()
    library.hf_gpt_describe(found)
    lanes, panel, has_int8, *sizes = found
    if sizes != [ctypes.sizeof(one) for one in (Decoder, Layer, Step, Packing, SampleRequest, Draft)]:
        build.logger.info("decoding steps are not used: their structures have another layout")
        return None
    library.hf_gpt_step.argtypes = [ctypes.POINTER(Decoder), ctypes.POINTER(Step)]
    library.hf_gpt_step.restype = _int
    library.hf_gpt_draft.argtypes = [ctypes.POINTER(one) for one in (Decoder, Step, Draft)]
    library.hf_gpt_draft.restype = _int
    library.hf_gpt_pack.argtypes = [ctypes.POINTER(Packing), _int]
    library.hf_gpt_sample.argtypes = [ctypes.POINTER(SampleRequest), _int]
    library.hf_gpt_large_pages.argtypes = [_pointer, _int]
    others = library.hf_gpt_pack, library.hf_gpt_sample, library.hf_gpt_large_pages
    for function in others:
        function.restype = None
    return Native(lanes, panel, bool(has_int8), library.hf_gpt_step, library.hf_gpt_draft, *others)


def address(tensor: torch.Tensor | None) -> int | None:
    """The address of a tensor's data."""
    return None if tensor is None else tensor.data_ptr()
