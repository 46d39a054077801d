"""Real texts, rollouts and replayed samples."""
