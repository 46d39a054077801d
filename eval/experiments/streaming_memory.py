"""
How much memory a streamed corpus takes: generated text of a given size is tokenised and packed row by row, and the
resident memory of the process is read on the way. With --places the file is entered at several places, evenly spread,
for an equal time each: a file too large to be read to its end is seen from its beginning to its end all the same.

    python -m eval.experiments.streaming_memory --gigabytes 10 --places 5
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


WORDS = 20_000
BLOCK = 200_000_000


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="10^9 bytes of text that are generated")
    parser.add_argument("--form", choices=["jsonl", "txt"], default="jsonl", help="of the file")
    parser.add_argument("--max_length", type=int, default=1024, help="tokens in a row")
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after this time, also before the end")
    parser.add_argument("--places", type=int, default=1, help="read on from this many places of the file")
    parser.add_argument("--keep", type=Path, help="folder for the text; left out: a temporary one")
    return parser


def random_texts(size: int, seed: int = 0) -> Iterator[str]:
    """Documents of made-up words with word frequencies as in natural text (Zipf's law), `size` bytes in all."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfw"))
    words = np.array(["".join(generator.choice(letters, generator.integers(2, 9))) for _ in range(WORDS)])
    weights = 1 / np.arange(1, WORDS + 1)
    weights /= weights.sum()
    while size > 0:
        samples = generator.choice(words, 200_000, p=weights)
        position = 0
        while position < len(samples) and size > 0:
            length = int(generator.integers(50, 1500))
            text = " ".join(samples[position : position + length])
            position, size = position + length, size - len(text)
            yield text


def write_corpus(path: Path, size: int) -> None:
    """Writes the text as a file of the form that its name ends with; text beyond 200 MB repeats."""
    jsonl = path.suffix == ".jsonl"
    lines = (json.dumps({"text": text}) + "\n" if jsonl else text + "\n" for text in random_texts(min(size, BLOCK)))
    block = "".join(lines).encode()
    with path.open("wb") as file:
        for _ in range(max(1, round(size / BLOCK))):
            file.write(block)


def next_line(path: Path, offset: int) -> int:
    """Byte offset of the first line that begins at or after an offset."""
    with path.open("rb") as file:
        file.seek(offset)
        if offset:
            file.readline()
        return file.tell()


def main(argv: Sequence[str] | None = None) -> int:
    import psutil

    from hf_gpt.data.sources import open_source
    from hf_gpt.data.streaming import DocumentStream, RowStream
    from hf_gpt.data.tokenizer import train_tokenizer

    args = make_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        path = (args.keep or Path(temporary)) / f"corpus.{args.form}"
        write_corpus(path, int(args.gigabytes * 1e9))
        tokenizer = train_tokenizer(random_texts(2_000_000), 4096)
        process, readings, rows, read, seconds, processor_seconds = psutil.Process(), [], 0, 0, 0.0, 0.0
        size = path.stat().st_size
        for position in range(args.positions):
            documents = DocumentStream([open_source(str(path))])
            stream = RowStream(documents, tokenizer, args.max_length)
            offset = next_line(path, size * position // args.positions)
            start = {**documents.state, "positions": [[offset, 0] if args.form == "jsonl" else [offset]]}
            stream.load_state_dict({"documents": start, "window": 0, "row": 0})
            begin, processor_begin = time.perf_counter(), time.process_time()
            for number, _ in enumerate(stream):
                ended = documents.state["epoch"] > 0 or time.perf_counter() - begin > args.seconds / args.positions
                if number % 500 == 0 or ended:
                    readings.append(process.memory_info().rss)
                if ended:
                    break
            seconds += time.perf_counter() - begin
            processor_seconds += time.process_time() - processor_begin
            rows, read = rows + number, read + documents.state["characters"][0]
    middle = len(readings) // 2
    result = {
        "file_bytes": size,
        "positions": args.positions,
        "characters_read": read,
        "rows": rows,
        "seconds": round(seconds, 1),
        "tokens_per_processor_second": round(rows * args.max_length / processor_seconds),
        "rss_first_half_max": max(readings[: middle + 1]),
        "rss_second_half_max": max(readings[middle:]),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
