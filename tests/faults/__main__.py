"""`python -m tests.faults`: damages every file of checkpoints and kills runs while they save; each has to go on right.

Right is the straight run bit for bit, or a sentence that says what is wrong. A traceback or another result is a fault.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import xxhash
from safetensors import safe_open

from hf_gpt.errors import UserError
from tests.faults.damage import DAMAGES, digests, files_of


WEIGHTS = (".safetensors", ".pt", ".pth")
TINY = "hidden_size=16,intermediate_size=32,num_hidden_layers=1,num_attention_heads=2"
COMMAND = (
    f"--train_file tinyshakespeare --config_overrides {TINY} --tokenizer_vocab_size 300 --max_length 32 "
    "--per_device_train_batch_size 4 --max_steps 4 --save_steps 2 --save_strategy steps --ema_decay 0.9 "
    "--lr_scheduler_type constant --eval_strategy no --sample_max_new_tokens 2 --save_total_limit 1"
).split()
# Ends the process at the n-th time that something is put on the disk or gets its name.
KILLED = """
import os, signal, sys
from pathlib import Path
left = int(sys.argv.pop(1))
def counted(call):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped
os.fsync, os.replace, Path.rename = counted(os.fsync), counted(os.replace), counted(Path.rename)
from hf_gpt.cli.main import main
status = main(sys.argv[1:])
print("calls", -left, file=sys.stderr)
sys.exit(status)
"""


def weights_of(folder: Path) -> dict[str, str]:
    """What the weights and states in a run's folder are, by file."""
    found = {name: digest for name, digest in digests(folder).items() if name.endswith(WEIGHTS)}
    for name in (name for name in found if name.endswith(".safetensors")):
        # Entries of its metadata are in no order.
        with safe_open(folder / name, framework="numpy") as file:
            tensors = {key: file.get_tensor(key).tobytes() for key in sorted(file.keys())}
            found[name] = xxhash.xxh3_128_hexdigest(repr((tensors, sorted((file.metadata() or {}).items()))).encode())
    return found


def damaged_checkpoints(folder: Path, say) -> int:
    """Damages each file of the newest checkpoint in each way, with and without its manifest; returns the faults."""
    from hf_gpt.files.manifest import MANIFEST_NAME
    from tests.training.test_damaged_checkpoints import make

    faults = trials = 0
    for kind in ("plain", "adversarial"):
        run = folder / kind
        make(kind, run).train()
        expected = weights_of(run)
        for name in files_of(run / "checkpoint-3"):
            for damage, change in DAMAGES.items():
                for has_manifest in (True, False):
                    copy = folder / "copy"
                    shutil.rmtree(copy, ignore_errors=True)
                    shutil.copytree(run, copy)
                    if not has_manifest:
                        (copy / "checkpoint-3" / MANIFEST_NAME).unlink()
                    if (copy / "checkpoint-3" / name).is_file():
                        change(copy / "checkpoint-3" / name)
                    trials += 1
                    found = outcome(lambda kind=kind, copy=copy: make(kind, copy).train(resume_from_checkpoint=True))
                    # What nothing tells of is seen by checksums alone.
                    same = not has_manifest or {**weights_of(copy), **expected} == weights_of(copy)
                    if found == "traceback" or (found == "done" and not same):
                        faults += 1
                        say(f"FAULT {kind} {name} {damage}, manifest {has_manifest}: {found}, the same: {same}")
    say(f"{trials} damaged checkpoints, {faults} faults")
    return faults


def outcome(call) -> str:
    """What a call came to: done, a sentence or a traceback."""
    try:
        call()
    except UserError:
        return "sentence"
    except Exception:
        traceback.print_exc()
        return "traceback"
    return "done"


def killed_runs(folder: Path, say, every: int) -> int:
    """Kills `hf-gpt pretrain` at every so many calls of the system that save something; returns the faults."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

    def run(name, left, *more):
        call = [
            sys.executable,
            "-c",
            KILLED,
            str(left),
            "pretrain",
            *COMMAND,
            "--output_dir",
            str(folder / name),
            *more,
        ]
        return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=600, check=False)

    straight = run("straight", 0)
    if straight.returncode:
        raise RuntimeError(straight.stderr)
    calls = int(straight.stderr.rsplit("calls", 1)[1])
    expected, faults, at = weights_of(folder / "straight"), 0, range(1, calls + 1, every)
    for left in at:
        shutil.rmtree(folder / "killed", ignore_errors=True)
        killed = run("killed", left)
        has_checkpoint = any((folder / "killed").glob("checkpoint-*"))
        again = run("killed", 0, *(["--resume_from_checkpoint"] if has_checkpoint else ["--overwrite_output_dir"]))
        found = weights_of(folder / "killed")
        if killed.returncode != -signal.SIGKILL or again.returncode or found != expected:
            faults += 1
            differing = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            say(f"FAULT killed at call {left} of {calls}: status {again.returncode}, {differing} {again.stderr[-300:]}")
    say(f"{len(at)} killed runs, {faults} faults")
    return faults


def main() -> int:
    """Returns 0 where no trial found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=11, help="kill at every so many calls that save something")
    parser.add_argument("trials", nargs="*", help="damaged, killed; left out: both")
    options = parser.parse_args()
    trials = options.trials or ["damaged", "killed"]
    faults = 0
    with tempfile.TemporaryDirectory(prefix="hf-gpt-faults-") as folder:
        if "damaged" in trials:
            faults += damaged_checkpoints(Path(folder), print)
        if "killed" in trials:
            faults += killed_runs(Path(folder), print, options.every)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
