"""`python -m hf_gpt` is `hf-gpt`."""

from hf_gpt.cli.main import main


raise SystemExit(main())
