"""The tasks of `hf-gpt eval`: a table of yaml files, what each kind asks of a model, and its figures."""
