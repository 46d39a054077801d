"""`python -m hf_gpt` is `hf-gpt`."""

from hf_gpt.cli import main


raise SystemExit(main())
