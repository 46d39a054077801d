"""`python -m tests.conformance`: see `--help`."""

import sys
from pathlib import Path


if __name__ == "__main__":
    # Under this name, and no other, the ranks of the distributed tests find these modules again.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from conformance.run import main

    sys.exit(main())
