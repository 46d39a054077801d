"""`hf-gpt eval`: models on tasks, and what came of it as files and a page."""
