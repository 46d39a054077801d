"""Pretraining and fine-tuning on `Trainer`."""
