"""`python -m tests.fuzz --inputs 100000`: counts by outcome; exits with 1 if anything crashed or hung."""

import argparse
import logging
import warnings

from tests.fuzz.targets import TARGETS, run


# Shares of the inputs, by how long one takes.
SHARES = {"config.json": 0.08, "recipe": 0.02, "safetensors": 0.86, "tokenizer": 0.04}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, help="one target alone gets all inputs")
    args = parser.parse_args()
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    shares = SHARES if args.target is None else {args.target: 1.0}
    faulty = False
    for name, share in shares.items():
        outcomes, faults = run(TARGETS[name](), round(share * args.inputs), args.seed)
        print(f"{name}: " + ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common()), flush=True)
        for outcome, value in faults.items():
            print(f"  {outcome}\n    {value!r:.400}", flush=True)
        faulty |= bool(faults)
    return int(faulty)


if __name__ == "__main__":
    raise SystemExit(main())
