"""What can go wrong in adversarial training: diagnostics, monitors, history."""
