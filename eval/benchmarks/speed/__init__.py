"""Speed, against peers and against what the machine can do: `hf-gpt bench`."""
