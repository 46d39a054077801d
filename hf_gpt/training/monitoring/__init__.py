"""Progress, throughput, cost and what goes wrong in training."""
