"""Generator against discriminator: losses, estimators, monitors and the trainer."""
