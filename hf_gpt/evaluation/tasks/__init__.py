"""The tasks of `hf-gpt eval`: YAML files, how each kind is run, and its metrics."""
