"""The generator's side: rewards, advantages, losses, update."""
