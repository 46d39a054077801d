"""What the results of `hf-gpt eval` say in the metadata of a model card."""

from collections.abc import Mapping
from typing import Any


# The Hub's names of our kinds of tasks (https://huggingface.co/tasks).
_HUB_TASKS = {
    "classification": "text-classification",
    "translation": "translation",
    "summarization": "summarization",
    "question_answering": "question-answering",
}


def model_index(results: Mapping[str, Any], model: str | None = None, name: str | None = None) -> list[dict[str, Any]]:
    """The `model-index` of a model card, as https://huggingface.co/docs/hub/model-cards has it.

    Args:
        results: The content of a `results.json`.
        model: Whose metrics; may be left out where there is one.
        name: What the card calls the model; left out, as the results do.

    Returns:
        One entry, for `yaml.safe_dump({"model-index": ...})` or `ModelCardData`.

    Raises:
        ValueError: there is no such model, or several and none is named, or it has no metrics.
    """
    names = [entry["name"] for entry in results["models"]]
    if model is None and len(names) == 1:
        model = names[0]
    if model not in names:
        raise ValueError(f"model must be one of {', '.join(names)}; got {model!r}.")
    from hf_gpt.evaluation.tasks.metrics import MEANINGS

    entries = []
    for task in dict.fromkeys(row["task"] for row in results["results"]):
        rows = [row for row in results["results"] if row["task"] == task and row["model"] == model]
        shown = [row for row in rows if row["metric"] in MEANINGS and row["value"] is not None]
        if not shown:
            continue
        facts = results["tasks"].get(task, {})
        kind = _HUB_TASKS.get(facts.get("kind", ""), "text-generation")
        dataset = {"name": facts.get("description") or task, "type": facts.get("hub") or task}
        for key, field in (("subset", "config"), ("split", "split")):
            if facts.get("hub") and facts.get(key):
                dataset[field] = facts[key]
        entries.append(
            {
                "task": {"type": kind, "name": task},
                "dataset": dataset,
                "metrics": [_metric(row, MEANINGS[row["metric"]].label) for row in shown],
            }
        )
    if not entries:
        raise ValueError(f"the results hold no metric of {model!r}.")
    return [{"name": name or model, "results": entries}]


def _metric(row: Mapping[str, Any], label: str) -> dict[str, Any]:
    metric = {"type": row["metric"], "name": label, "value": row["value"]}
    if row.get("low") is not None:
        metric["args"] = {"low": row["low"], "high": row["high"], "level": 0.95, "items": row["items"]}
    return metric
