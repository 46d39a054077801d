"""Generator against discriminator, on `Trainer`."""
