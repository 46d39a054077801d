"""The model card: what a checkpoint is, how it is opened, and what was measured."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_gpt.errors import HubError
from hf_gpt.installation import install_hint


_FRONT = re.compile(r"\A---\s*\n(.*?\n)---\s*\n?", re.DOTALL)
_PIPELINES = {
    "CausalLM": "text-generation",
    "ConditionalGeneration": "text2text-generation",
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
}


def results_metadata(folder: Path, results: Path | None = None) -> dict[str, Any]:
    """`model-index` of what `hf-gpt eval` found for a model.

    Args:
        folder: Of the model.
        results: A `results.json`; left out, the one in the folder, if there is one.

    Raises:
        HubError: the file holds no results of this model, or the evaluation is not installed.
    """
    path = folder / "results.json" if results is None else results
    if results is None and not path.is_file():
        return {}
    try:
        from hf_gpt.reporting.model_card import model_index
    except ImportError as error:
        if results is None:
            return {}
        raise HubError(f"--results needs more packages ({error}): {install_hint('eval')}") from error
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"model-index": model_index(content, _name_of(folder, content))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HubError(f"{path} holds no results of {folder}: {error}") from error


def _name_of(folder: Path, content: Mapping[str, Any]) -> str | None:
    """What results of several models call the one in a folder; None if there is one alone."""
    models = content["models"]
    if len(models) == 1:
        return None
    for entry in models:
        path = Path(entry["path"]).expanduser()
        if folder.resolve() in (path.resolve(), (path / "model").resolve()):
            return entry["name"]
    raise ValueError(f"it is of {', '.join(entry['path'] for entry in models)}")


def build_card(
    repo_id: str,
    config: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    files: Iterable[str] = (),
    written: str | None = None,
) -> str:
    """The text of `README.md`.

    Args:
        repo_id: Where the model will be.
        config: Its `config.json`, or `adapter_config.json` of an adapter.
        metadata: Further metadata of the card, such as `model-index`, `license` or `datasets`; it replaces the same
            keys of `written`.
        files: Names of the files that go along; plots are shown, a discriminator is told of.
        written: A card that is there already. Its text is kept.

    Raises:
        HubError: the metadata of `written` is no YAML.
    """
    own, body = _split(written or "")
    fields = {**_default_metadata(config), **own, **(metadata or {})}
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    text = body.strip() or _body(repo_id, config, fields, sorted(files))
    return f"---\n{front}---\n\n{text}\n"


def _split(written: str) -> tuple[dict[str, Any], str]:
    match = _FRONT.match(written)
    if match is None:
        return {}, written
    try:
        fields = yaml.safe_load(match[1]) or {}
    except yaml.YAMLError as error:
        raise HubError(f"the metadata of README.md is no YAML: {error}") from error
    if not isinstance(fields, dict):
        raise HubError("the metadata of README.md must be names with values.")
    return fields, written[match.end() :]


def _head(config: Mapping[str, Any]) -> str:
    name = str((config.get("architectures") or [""])[0])
    return "CausalLM" if name.endswith("LMHeadModel") else name.rpartition("For")[2]


def _default_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"library_name": "peft" if "peft_type" in config else "transformers"}
    if _head(config) in _PIPELINES:
        fields["pipeline_tag"] = _PIPELINES[_head(config)]
    fields["tags"] = ["hf-gpt", *([str(config["model_type"])] if "model_type" in config else [])]
    if "peft_type" in config:
        fields["base_model"] = config.get("base_model_name_or_path")
    return fields


def _body(repo_id: str, config: Mapping[str, Any], fields: Mapping[str, Any], files: list[str]) -> str:
    name = str((config.get("architectures") or [config.get("peft_type", "model")])[0])
    lines = [f"# {repo_id.rpartition('/')[2]}", "", f"A {name} of [hf-gpt](https://pypi.org/project/hf-gpt).", ""]
    lines += ["```python", "from hf_gpt.hub import load", "", f'model, tokenizer = load("{repo_id}")']
    if any(file.startswith("discriminator/") for file in files):
        lines.append(f'discriminator, _ = load("{repo_id}", subfolder="discriminator")')
    lines += ["```", ""]
    if any(file.startswith("base/") for file in files):
        lines += ["The adapter's weights are here, the model that it is for is in the folder `base`.", ""]
    if "auto_map" in config and _head(config) in _PIPELINES:
        auto = "AutoModelForSeq2SeqLM" if _head(config) == "ConditionalGeneration" else f"AutoModelFor{_head(config)}"
        lines += [
            "Without hf-gpt, by the code in this repository:",
            "",
            "```python",
            f"from transformers import {auto}",
            "",
            f'model = {auto}.from_pretrained("{repo_id}", trust_remote_code=True)',
            "```",
            "",
        ]
    if rows := _rows(fields.get("model-index")):
        lines += ["## Results", "", "| task | data | metric | value |", "|---|---|---|---|", *rows, ""]
    if plots := [file for file in files if file.endswith(".png") and not file.startswith("discriminator/")]:
        lines += ["## Plots", "", *(f"![{Path(file).stem}]({file})" for file in plots), ""]
    return "\n".join(lines).strip()


def _rows(index: Any) -> list[str]:
    rows = []
    for model in index or []:
        for result in model.get("results", []):
            task, data = result.get("task", {}), result.get("dataset", {})
            for metric in result.get("metrics", []):
                value = metric.get("value")
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                cells = (task.get("name") or task.get("type"), data.get("name"), metric.get("name"), shown)
                rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return rows


def _cell(value: Any) -> str:
    return str("" if value is None else value).replace("|", "\\|").replace("\n", " ")
