"""Are two samples of texts drawn from the same distribution? Tests and distances, as pure functions."""
