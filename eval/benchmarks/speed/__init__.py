"""Speed, against peers and against what the machine can do: `python -m eval.benchmarks.speed`."""
