"""The HTML report, its plots and tables, and the model card."""
