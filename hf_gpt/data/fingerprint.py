"""What data is, in a few characters: two runs that read the same have the same fingerprint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


# Of data sets above this size so many rows are looked at, spread evenly.
_MOST_BYTES, _ROWS = 2**31, 4096
# Of a file that is streamed so many parts at most, of this size.
_PARTS, _PART_BYTES = 256, 2**16


def fingerprint(data: Any) -> str | None:
    """The fingerprint of rows; None of what cannot be looked at without changing it.

    Content counts, not names: a file that was moved is the same, one that was edited is not. Of a dataset of more than
    2 GiB rows spread over all of it are looked at.
    """
    if data is None:
        return None
    if hasattr(data, "with_format") and hasattr(data, "data"):
        return _of_table(data)
    rows = getattr(data, "rows", data)
    if isinstance(rows, (list, tuple)):
        digest = hashlib.blake2b(digest_size=16)
        if all(_add(digest, row) for row in rows):
            return f"{len(rows)} rows {digest.hexdigest()}"
    return f"{len(data)} rows" if hasattr(data, "__len__") else None


def _of_table(dataset: Any) -> str:
    import pyarrow as pa

    count, digest = len(dataset), hashlib.blake2b(digest_size=16)
    table = dataset.with_format("arrow")
    if dataset.data.nbytes > _MOST_BYTES:
        parts = [table[int(row) : int(row) + 1] for row in np.linspace(0, count - 1, min(count, _ROWS))]
    else:
        parts = table.iter(batch_size=1024)
    for part in parts:
        part = part.combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema.remove_metadata()) as writer:
            writer.write_table(part.replace_schema_metadata(None))
        digest.update(sink.getvalue())
    return f"{count} rows {digest.hexdigest()}"


def stream_fingerprint(documents: Any, state: Mapping[str, Any]) -> str:
    """The fingerprint of what has been read of a `DocumentStream` up to a state.

    What comes later may change: a row that stopped the run is mended, a file grows. Of large files parts spread over
    what was read are looked at; of a data set of the Hub its name.
    """
    from hf_gpt.data.corpus import built_in_corpora, resolve_file

    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(documents.weights).encode())
    for number, (source, position) in enumerate(zip(documents.sources, state["positions"], strict=True)):
        path = Path(source.name).expanduser()
        if not path.is_file() and source.name in built_in_corpora():
            path = resolve_file(source.name)
        ended = number < state["current"] if documents.weights is None else state["characters"][number] and not position
        if not path.is_file():
            digest.update(f"{source.name}".encode())
        elif state["epoch"] or ended or (position and path.suffix.lower() == ".parquet"):
            _add_file(digest, path, path.stat().st_size)
        elif position:
            # Where the next document begins.
            _add_file(digest, path, position[0])
    return f"{len(documents.sources)} sources {digest.hexdigest()}"


def _add_file(digest: Any, path: Path, size: int) -> None:
    digest.update(f"{size} {path.stat().st_size >= size}".encode())
    with path.open("rb") as file:
        if size <= _PARTS * _PART_BYTES:
            digest.update(file.read(size))
            return
        for position in np.linspace(0, size - _PART_BYTES, _PARTS).astype(int):
            file.seek(int(position))
            digest.update(file.read(_PART_BYTES))


def _add(digest: Any, value: Any) -> bool:
    """Adds a value of plain types, arrays and tensors; returns whether it is one."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy() if value.dtype == torch.bfloat16 else value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
        return value.dtype != object
    if isinstance(value, Mapping):
        return all(_add(digest, name) and _add(digest, part) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        if value and all(type(part) is int for part in value) and max(map(abs, value)) < 2**62:
            return _add(digest, np.array(value, dtype=np.int64))
        digest.update(f"[{len(value)}".encode())
        return all(_add(digest, part) for part in value)
    digest.update(repr(value).encode("utf-8", "surrogatepass"))
    return value is None or isinstance(value, (str, bytes, int, float, bool, np.generic))
