"""The discriminator's side: model, losses, update, training."""
