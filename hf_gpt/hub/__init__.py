"""Checkpoints to and from the Hugging Face Hub."""
