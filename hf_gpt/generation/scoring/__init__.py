"""Log-probabilities by language models; logits by discriminators."""
