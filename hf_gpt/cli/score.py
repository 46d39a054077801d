"""`hf-gpt score`: logit and probability of being real, by a discriminator, of each text of a file."""

import codecs
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hf_gpt.cli.command import REQUIRED, RevisionOptions, TextOptions, command, option
from hf_gpt.data.row_files import Malformed, Row, advised, read_rows, rows_of_lines, table_format, text_in
from hf_gpt.data.text_files import (
    absent_separator,
    decode_text,
    fold_line_ends,
    parse_separator,
    read_text,
    split_text,
)
from hf_gpt.files.atomic_files import write_text


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(TextOptions, RevisionOptions):
    """The options of the command."""

    file: str = option(
        REQUIRED, "texts: a text, .jsonl, .json, .csv or .parquet file, or - for standard input", positional=True
    )
    discriminator: str = option(REQUIRED, "folder of a discriminator or checkpoint, or a Hub id")
    per_token: bool = option(False, "give the logit after each token as well")
    format: Literal["table", "jsonl"] | None = option(
        None, "left out: table on a terminal, jsonl when piped or in a file"
    )
    output: Path | None = option(None, "file to write; left out: standard output")
    batch_size: int = option(32, "texts scored at a time")


def read_texts(source: str, text_column: str = "text", document_separator: str | None = None) -> Iterator[str]:
    """The texts of a file or, for `-`, of standard input, which is read as .jsonl if its first line is an object.

    Files are read as by the commands that train. Blank texts are left out.

    Raises:
        ValueError: the input is not UTF-8, or a row is no object with a text; the message names the line.
        OSError: there is no such file.
    """
    path = Path(source)
    if source == "-":
        data, name = sys.stdin.buffer.read(), "standard input"
        if _is_object(data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0]):
            yield from _texts_of(rows_of_lines(data, name), text_column)
            return
        content = decode_text(data, name)
    elif table_format(path) is not None:
        if not path.is_file():
            raise FileNotFoundError(f"no such file: {source}")
        yield from _texts_of(read_rows(path, columns={"text_column": text_column}), text_column)
        return
    else:
        content = read_text(path)
    separator = None if document_separator is None else parse_separator(document_separator)
    if separator is not None and (warning := absent_separator(separator, [content])):
        print(f"warning: {warning}", file=sys.stderr)
    # The line end that closes a file is no part of its text.
    yield from (part.removesuffix("\n") for part in split_text(content, separator))


def _texts_of(rows: Iterable[Row], text_column: str) -> Iterator[str]:
    for where, values, _ in rows:
        text = values if isinstance(values, Malformed) else text_in(values, text_column, where)
        if isinstance(text, Malformed):
            raise advised(text)
        if text.strip():
            yield fold_line_ends(text)


def score(args: ScoreOptions) -> int:
    """Reads the texts, loads the discriminator, scores them and writes the results."""
    texts = list(read_texts(args.file, args.text_column, args.document_separator))
    if not texts:
        raise ValueError(f"{args.file}: no text found. Every text is empty or blank.")
    from transformers import AutoTokenizer

    from hf_gpt.files.checkpoints import explains_model_errors, find_existing_model
    from hf_gpt.generation.devices import pick_device
    from hf_gpt.generation.guidance.guided_generate import load_discriminator
    from hf_gpt.terminal import hide_bars

    hide_bars()
    device = pick_device(args.device)
    path = find_existing_model(args.discriminator)
    options = {"revision": args.revision, "trust_remote_code": args.trust_remote_code}
    with explains_model_errors(path):
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    discriminator = load_discriminator(path, **options).to(device)
    results = score_texts(discriminator, tokenizer, texts, args.batch_size, args.per_token)
    form = args.format or ("table" if args.output is None and sys.stdout.isatty() else "jsonl")
    # An encoding with fewer characters would put escapes of Python in their place, which are none of JSON.
    is_ascii = args.output is None and codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"
    lines = [json.dumps(result, ensure_ascii=is_ascii) for result in results] if form == "jsonl" else table(results)
    if args.output is not None:
        write_text(args.output, "\n".join(lines) + "\n")
    else:
        print("\n".join(lines), flush=True)
    if cut := sum(result.get("truncated", False) for result in results):
        print(
            f"note: {cut:,} of {len(texts):,} texts are longer than the discriminator reads and were cut",
            file=sys.stderr,
        )
    return 0


def score_texts(
    discriminator: Any, tokenizer: Any, texts: Sequence[str], batch_size: int = 32, per_token: bool = False
) -> list[dict[str, Any]]:
    """`text`, `logit` and `probability` of each text; `tokens` with the `logit` after each and its `change`, where
    tokens that are parts of one character stand as one.

    `truncated` is true for a text of which only the first part was read, and absent otherwise.

    Raises:
        ValueError: per-token scores of a discriminator that is not causal, or several labels.
    """
    from hf_gpt.generation.scoring.discriminator import prefix_scores, sequence_scores
    from hf_gpt.generation.scoring.texts import encode_texts, max_positions

    ids, mask, are_cut = encode_texts(tokenizer, texts, max_positions(discriminator))
    logits = sequence_scores(discriminator, ids, mask, batch_size)
    results = []
    for text, logit, is_cut in zip(texts, logits.tolist(), are_cut, strict=True):
        result = {"text": text, "logit": round(logit, 4), "probability": round(_sigmoid(logit), 4)}
        if is_cut:
            result["truncated"] = True
        results.append(result)
    if per_token:
        for result, row, kept, scores in zip(
            results, ids, mask.bool(), prefix_scores(discriminator, ids, mask, batch_size), strict=True
        ):
            before, logits = 0.0, scores[kept].tolist()
            result["tokens"] = []
            for last, token in _whole_characters(tokenizer, row[kept].tolist()):
                entry = {
                    "token": token,
                    "logit": round(logits[last], 4),
                    "change": round(logits[last] - before, 4),
                }
                result["tokens"].append(entry)
                before = logits[last]
    return results


def _whole_characters(tokenizer: Any, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Each token's position and text; tokens that are parts of one character, of four bytes at most, stand as one."""
    start = 0
    while start < len(ids):
        for stop in range(start + 1, min(start + 4, len(ids)) + 1):
            text = tokenizer.decode(ids[start:stop])
            if "\ufffd" not in text:
                break
        else:
            stop, text = start + 1, tokenizer.decode(ids[start : start + 1])
        yield stop - 1, text
        start = stop


def table(results: Sequence[dict[str, Any]], width: int = 60) -> list[str]:
    """The results as lines: logit, probability and start of the text, then its tokens where there are any."""
    lines = [f"{'logit':>8}  {'real':>6}  text"]
    for result in results:
        text = " ".join(result["text"].split())
        shown = text if len(text) <= width else text[: width - 3] + "..."
        lines.append(f"{result['logit']:8.2f}  {result['probability']:6.1%}  {shown}")
        lines += [
            f"{token['logit']:8.2f}  {token['change']:+6.2f}    {json.dumps(token['token'], ensure_ascii=False)}"
            for token in result.get("tokens", ())
        ]
    return lines


def _sigmoid(logit: float) -> float:
    import math

    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False


make_parser, main = command(
    "hf-gpt score",
    "Says how real each text looks to a discriminator: its logit (above 0: real) and probability.",
    ScoreOptions,
    score,
    examples=["texts.txt --discriminator runs/discriminator --document_separator '\\n'"],
    expected=(OSError, ValueError),
    paths=("discriminator",),
)
