"""Training arguments of an experiment that keeps its own figures."""

# Nothing is saved, evaluated or shown.
QUIET = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "logging_first_step": False,
    "report_to": "none",
    "disable_tqdm": True,
}
