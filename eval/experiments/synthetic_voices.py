"""
Words spoken by the voices of a synthesiser, as further speakers to train on where recordings are of few people. Needs
the program eSpeak NG (`apt-get install espeak-ng`), a formant synthesiser: its voices are rules, not recordings.

    python -m eval.experiments.synthetic_voices runs/voices.parquet
    hf-gpt finetune --config spoken_digits --train_file fsdd_8khz.parquet runs/voices.parquet ...

Each of its voice variants says every word, in an English accent, at a pace and pitch of its own.
"""

import argparse
import io
import math
import random
import shutil
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_gpt.files.atomic_files import replaces_file


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029")
# Voice variants that are meant as people, not as robots or whispers.
VOICES = (
    *(f"m{number}" for number in range(1, 9)),
    *("klatt", "klatt2", "klatt3", "klatt4", "f1", "f2", "Andy", "Mike", "grandpa", "max", "Alex", "Lee", "croak"),
    *("iven", "adam", "john", "ed", "rob", "quincy", "Denis", "Michael", "steph", "robert", "Gene", "Henrique"),
    *("Hugo", "Marco", "Mario", "pablo", "Storm", "travis", "victor", "zac", "norbert", "paul"),
)
# Words a minute, and the program's scale of pitch from 0 to 99.
PACES, PITCHES = (110, 190), (25, 60)
PROGRAM = "espeak-ng"


def speak(word: str, voice: str, *, pace: int, pitch: int, sampling_rate: int) -> np.ndarray:
    """A word as samples, int16 of shape (samples,).

    Args:
        word: What is said.
        voice: Accent and variant, such as `en-us+m3`.
        pace: Words a minute.
        pitch: From 0 to 99.
        sampling_rate: Samples in a second.
    """
    words = [PROGRAM, "-v", voice, "-s", str(pace), "-p", str(pitch), "--stdout", word]
    return resampled(subprocess.run(words, capture_output=True, check=True).stdout, sampling_rate)


def resampled(content: bytes, sampling_rate: int) -> np.ndarray:
    """The samples of a mono WAV file of 16 bits at another rate, int16 of shape (samples,)."""
    from scipy.signal import resample_poly

    with wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        # What is piped has no length in its header, so all that is there is read.
        samples = np.frombuffer(file.readframes(len(content)), "<i2").astype(np.float64)
    divisor = math.gcd(rate, sampling_rate)
    samples = resample_poly(samples, sampling_rate // divisor, rate // divisor)
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def write_voices(path: Path, words: Sequence[str], *, accents_per_voice: int, sampling_rate: int, seed: int) -> int:
    """Writes a parquet file of all words by all voices; returns how many sounds.

    Its columns are `digit` (place of the word in `words`), `speaker` (`espeak-` and the variant), `index` and
    `samples`.

    Raises:
        SystemExit: the synthesiser is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if shutil.which(PROGRAM) is None:
        raise SystemExit(f"{PROGRAM} is not installed. Install it (apt-get install {PROGRAM}), or do without voices.")
    rng = random.Random(seed)
    rows = []
    for name in VOICES:
        for index, accent in enumerate(rng.sample(ACCENTS, accents_per_voice)):
            for digit, word in enumerate(words):
                samples = speak(
                    word,
                    f"{accent}+{name}",
                    pace=rng.randint(*PACES),
                    pitch=rng.randint(*PITCHES),
                    sampling_rate=sampling_rate,
                )
                rows.append({"digit": digit, "speaker": f"espeak-{name}", "index": index, "samples": samples.tolist()})
    with replaces_file(path) as draft:
        pq.write_table(pa.Table.from_pylist(rows), draft)
    return len(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="parquet file to write")
    parser.add_argument("--words", nargs="+", default=list(DIGITS), help="what is said; a word's class is its place")
    parser.add_argument("--accents_per_voice", type=int, default=1, help="accents of each voice, drawn at random")
    parser.add_argument("--sampling_rate", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    count = write_voices(
        options.output,
        options.words,
        accents_per_voice=options.accents_per_voice,
        sampling_rate=options.sampling_rate,
        seed=options.seed,
    )
    print(f"{count} sounds in {options.output}")
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
