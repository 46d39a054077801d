"""The oracle of the SeqGAN benchmark: an LSTM with random weights, ours by seed or SeqGAN's own from its file."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.experiments.common.random_language import RandomLanguage


START = 0

# The arrays of SeqGAN's file `save/target_params_py3.pkl`, in its order; each x is multiplied from the left: x W.
SEQGAN_ARRAYS = ("emb", "Wi", "Ui", "bi", "Wf", "Uf", "bf", "Wo", "Uo", "bo", "Wc", "Uc", "bc", "head", "head_bias")
# Gates in PyTorch's order: input, forget, cell, output.
_GATES = ("i", "f", "c", "o")


def make_oracle(seed: int, vocab_size: int, width: int) -> RandomLanguage:
    """An oracle with weights from N(0, 1), with one bias a gate as SeqGAN's, where PyTorch's LSTM adds two."""
    oracle = RandomLanguage(vocab_size, width, seed=seed)
    oracle.lstm.bias_hh_l0.zero_()
    return oracle


def read_oracle(path: Path) -> RandomLanguage:
    """SeqGAN's own oracle, from `save/target_params_py3.pkl` of its repository.

    Raises:
        ValueError: the file holds something else; nothing but NumPy arrays is ever loaded from it.
    """
    with path.open("rb") as file:
        try:
            arrays = _ArraysOnly(file, encoding="latin1").load()
            named = dict(zip(SEQGAN_ARRAYS, map(np.asarray, arrays), strict=True))
        except (pickle.UnpicklingError, ValueError, TypeError, EOFError) as error:
            raise ValueError(f"{path} does not hold the {len(SEQGAN_ARRAYS)} arrays of SeqGAN's oracle.") from error
    oracle = RandomLanguage(*named["emb"].shape)
    lstm = oracle.lstm
    for parameter, array in (
        (oracle.embedding.weight, named["emb"]),
        (lstm.weight_ih_l0, np.concatenate([named[f"W{gate}"] for gate in _GATES], axis=1).T),
        (lstm.weight_hh_l0, np.concatenate([named[f"U{gate}"] for gate in _GATES], axis=1).T),
        (lstm.bias_ih_l0, np.concatenate([named[f"b{gate}"] for gate in _GATES])),
        (lstm.bias_hh_l0, np.zeros(len(lstm.bias_hh_l0))),
        (oracle.head.weight, named["head"].T),
        (oracle.head.bias, named["head_bias"]),
    ):
        if parameter.shape != array.shape:
            raise ValueError(f"{path}: an array has shape {array.shape}, not {tuple(parameter.shape)}.")
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))
    return oracle


class _ArraysOnly(pickle.Unpickler):
    """Loads NumPy arrays and containers of them: a pickle of anything else could run any code."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "scalar"})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._ALLOWED:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")
