"""`hf-gpt app`: models and a discriminator in a browser."""
