"""Tasks of the LM evaluation harness (https://github.com/EleutherAI/lm-evaluation-harness), run by it on our models."""

from pathlib import Path
from typing import Any

from hf_gpt.errors import UserError
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.installation import install_hint


PREFIX = "lm_eval:"


def is_harness_task(name: str) -> bool:
    """Whether a task is one of the harness: `lm_eval:NAME`, or a yaml file in its form."""
    if name.startswith(PREFIX):
        return True
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(line.startswith("output_type:") for line in text.splitlines())


def run_harness_task(name: str, candidate: Candidate, limit: int | None, batch_size: int) -> dict[str, Any]:
    """The record of a model on a task of the harness.

    Returns:
        `scores`: for each metric that is a mean over items, the values of the items. `aggregates`: all metrics as the
        harness gives them. `items`: their number.

    Raises:
        UserError: the harness is not installed, has no such task, or cannot run it.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            f"{name} needs the LM evaluation harness ({error}). Install it: {install_hint('lm-eval')}"
        ) from error
    if candidate.head not in ("causal", "encoder_decoder"):
        raise UserError(f"{candidate.name} is a {candidate.head} model; {name} needs one that writes text.")
    file = Path(name.removeprefix(PREFIX))
    folder = str(file.resolve().parent) if file.suffix in (".yaml", ".yml") else None
    manager = TaskManager(include_path=folder)
    wanted = harness_name(name).removeprefix(PREFIX)
    if wanted not in manager.all_tasks:
        from hf_gpt.errors import did_you_mean

        raise UserError(f"the LM evaluation harness has no task {wanted!r}{did_you_mean(wanted, manager.all_tasks)}")
    backend = "causal" if candidate.head == "causal" else "seq2seq"
    model = HFLM(pretrained=candidate.model, tokenizer=candidate.tokenizer, backend=backend, batch_size=batch_size)
    try:
        found = simple_evaluate(
            model, tasks=[wanted], limit=limit, task_manager=manager, bootstrap_iters=0, log_samples=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"the LM evaluation harness could not run {wanted}: {reason}") from error
    return harness_record(found, wanted)


def harness_record(found: dict[str, Any], task: str) -> dict[str, Any]:
    """What the harness returned for one task, as a record; a group of tasks has metrics without items."""
    metrics = {
        key.removesuffix(",none"): value
        for key, value in found["results"].get(task, {}).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and "_stderr" not in key
    }
    samples = found.get("samples", {}).get(task, [])
    scores = {}
    for name, value in metrics.items():
        each = [sample.get(name) for sample in samples]
        # Only a mean over items has an interval here.
        numbers = each and all(isinstance(one, (int, float)) for one in each)
        if numbers and abs(sum(each) / len(each) - value) < 1e-9:
            scores[name] = [float(one) for one in each]
    return {"scores": scores, "aggregates": {k: float(v) for k, v in metrics.items()}, "items": len(samples)}


def harness_name(name: str) -> str:
    """What tables call a task of the harness: `lm_eval:NAME`, for a file the name that is in it.

    Raises:
        UserError: the file has no name in it.
    """
    path = Path(name.removeprefix(PREFIX))
    if path.suffix not in (".yaml", ".yml"):
        return name
    if not path.is_file():
        raise UserError(f"there is no file {path} with a task of the LM evaluation harness.")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("task:"):
            return PREFIX + line.partition(":")[2].strip().strip("'\"")
    raise UserError(f"{path}: a task of the LM evaluation harness needs a line 'task: NAME'.")
