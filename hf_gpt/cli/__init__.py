"""`hf-gpt <command>`: one file a command."""
