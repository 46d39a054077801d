"""Weights of GPT-2, Llama, Mistral, Qwen2 and Qwen3 as HfGpt weights and back."""
