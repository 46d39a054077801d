"""Fine-tuning within tests."""

import pytest


@pytest.fixture(autouse=True)
def reload_in_process(monkeypatch):
    """Fine-tuned checkpoints are checked in this process, which saves the start of another in every test."""
    from hf_gpt.training.tasks import reload as task_reload

    monkeypatch.setattr(task_reload, "check_in_fresh_process", task_reload.run_check)
