"""`python -m eval.benchmarks.speed`: see `command.py`."""

from eval.benchmarks.speed.command import main


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
