"""The registry of tasks: those of the package, and those of a user's YAML file."""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.errors import ConfigError, did_you_mean
from hf_gpt.option_values import as_written


TABLE = Path(__file__).parent
WRITING = ("translation", "summarization", "question_answering")
# Likelihood of texts that are there.
LIKELIHOOD = ("language_modelling", "residual_language_modelling")
KINDS = (*LIKELIHOOD, "unconditional", "last_word", "multiple_choice", "classification", *WRITING)
# Metrics of each kind where a task names none, with their options.
DEFAULT_METRICS: dict[str, dict[str, dict[str, Any]]] = {
    "language_modelling": {"perplexity": {}},
    "residual_language_modelling": {"residual_perplexity": {}},
    "unconditional": {"ngram_bleu": {}, "self_bleu": {}, "distinct_n": {}, "tfidf_test": {}, "surface": {}},
    "last_word": {},
    "multiple_choice": {},
    "classification": {"accuracy": {}, "f1": {"average": "macro"}, "mcc": {}},
    "translation": {"sacrebleu": {}},
    "summarization": {"rouge": {}},
    "question_answering": {"squad": {}},
}
# What a kind cannot do without.
_NEEDED = {
    "multiple_choice": ("choices", "answer"),
    "classification": ("label",),
    "translation": ("prompt", "target"),
    "summarization": ("prompt", "target"),
    "question_answering": ("prompt", "target"),
}
# Kinds whose metrics come with them.
_FIXED = (*LIKELIHOOD, "last_word", "multiple_choice")
_SLOT = re.compile(r"\{(\w+)\}")
# Fields that hold text, which yaml would take for a truth value, a number or a date.
_TEXTS = ("name", "description", "prompt", "text", "document_separator", "labels", "label", "choices", "target", "stop")
_TEXTS += ("file", "hub", "subset", "split")


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """A task.

    Attributes:
        name, description: For people.
        kind: One of `KINDS`.
        file: Data file, relative to the folder of `--data` or of the task's own yaml file.
        hub, subset, split: A data set of the Hub, used where there is no file.
        prompt: Template of what the model reads, with columns in braces.
        text: Column of the text, for the kinds that judge or classify texts.
        document_separator: Where a text file parts into texts; left out, at line ends.
        choices: Column with a list of choices, or a template for each choice.
        contexts: Column with a context for each choice; `choices` is then one template, the same for all.
        answer: Column with the number of the right choice, or that number.
        label: Column with the class, a name or a number.
        labels: Names of the classes by number; a language model is asked which of them follows the prompt.
        target: Column with the text, or the list of texts, that would be right; or several columns, a text in each.
        metrics: Names and options; left out, those of the kind.
        samples: Number of unconditional samples, at most half of the real texts, which is the default. Of a residual
            model: samples that log Z is estimated by, 4,096 by default.
        max_new_tokens, temperature, top_k, top_p, min_p: Sampling options; temperature 0 takes the likeliest token.
        stop: What ends a written text.
        max_length: Most tokens read. None: the model's limit.
        prompt_tokens: Of a residual model: tokens of real text that each window begins with. 0: texts are whole ones
            after the begin token. None: as its discriminator was trained.
    """

    name: str
    kind: str
    description: str = ""
    file: str | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "test"
    prompt: str = ""
    text: str = "text"
    document_separator: str | None = None
    choices: str | Sequence[str] | None = None
    contexts: str | None = None
    answer: str | int | None = None
    label: str | None = None
    labels: Sequence[str] | None = None
    target: str | Sequence[str] | None = None
    metrics: Mapping[str, Mapping[str, Any]] | None = None
    samples: int | None = None
    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: Sequence[str] = ()
    max_length: int | None = None
    prompt_tokens: int | None = None
    folder: str = ""

    @property
    def sampled(self) -> bool:
        """Whether what the model says depends on a seed."""
        return self.kind == "unconditional" or (self.kind in WRITING and self.temperature > 0)

    @property
    def wanted_metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Names and options of the metrics."""
        return DEFAULT_METRICS[self.kind] if self.metrics is None else self.metrics

    @property
    def reads_text(self) -> bool:
        """Whether it is on texts that are there, rather than on prompts."""
        return self.kind in (*LIKELIHOOD, "unconditional", "last_word", "classification")

    @property
    def slots(self) -> list[str]:
        """The columns that stand in templates."""
        templates = [self.prompt, *([self.choices] if self.contexts else [])]
        if isinstance(self.choices, (list, tuple)):
            templates += self.choices
        return [name for template in templates if template for name in _SLOT.findall(template)]

    @property
    def columns(self) -> list[str]:
        """The columns that every row must have."""
        found = list(self.slots)
        if isinstance(self.choices, str) and not self.contexts:
            found.append(self.choices)
        if self.reads_text:
            found.append(self.text)
        found += [name for name in (self.contexts, self.label) if name]
        found += [self.target] if isinstance(self.target, str) else self.target or ()
        if isinstance(self.answer, str):
            found.append(self.answer)
        return list(dict.fromkeys(found))


def built_in_tasks() -> dict[str, TaskSpec]:
    """The tasks that come with the package, by name."""
    return {path.stem: read_task(path) for path in sorted(TABLE.glob("*.yaml"))}


def find_task(name: str) -> TaskSpec:
    """The task that a name or the path of a yaml file stands for.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return read_task(Path(name).expanduser())
    path = TABLE / f"{name}.yaml"
    if not path.is_file():
        names = sorted(path.stem for path in TABLE.glob("*.yaml"))
        raise ConfigError(
            f"there is no task {name!r}{did_you_mean(name, names)} Tasks: {', '.join(names)}; or give a .yaml file of "
            "your own, or lm_eval:NAME for a task of the LM evaluation harness."
        )
    return read_task(path)


def read_task(path: Path) -> TaskSpec:
    """Reads and checks a task.

    Raises:
        ConfigError: the file cannot be read, or a field is unknown, missing or wrong; the message names file and field.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        content, written = yaml.safe_load(text), yaml.load(text, Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"task {path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"task {path}: must be a table of fields, such as 'kind: multiple_choice'.")
    fields = [field.name for field in dataclasses.fields(TaskSpec) if field.name != "folder"]
    for name in content:
        if name not in fields:
            raise ConfigError(f"task {path}: no field {name!r}{did_you_mean(str(name), fields)}")
    for name in _TEXTS:
        if name in content:
            content[name] = as_written(content[name], written[name])
    if path.parent != TABLE:
        content["folder"] = str(path.parent)
    return check_task(TaskSpec(**{"name": path.stem, "kind": "", **content}), str(path))


def check_task(spec: TaskSpec, source: str) -> TaskSpec:
    """The task itself, after making sure that it can be run.

    Raises:
        ConfigError: a field is missing or wrong.
    """
    if spec.kind not in KINDS:
        hint = did_you_mean(str(spec.kind), KINDS)
        raise ConfigError(f"task {source}: kind is {spec.kind!r}{hint} Kinds: {', '.join(KINDS)}.")
    _check_types(spec, source)
    for name in _NEEDED.get(spec.kind, ()):
        if getattr(spec, name) is None or getattr(spec, name) == "":
            raise ConfigError(f"task {source}: a task of kind {spec.kind} needs {name!r}.")
    if spec.contexts is not None and not isinstance(spec.choices, str):
        raise ConfigError(f"task {source}: with contexts, choices is one template such as '{{continuation}}'.")
    if isinstance(spec.choices, (list, tuple)) and len(spec.choices) < 2:
        raise ConfigError(f"task {source}: choices needs two templates at least.")
    if isinstance(spec.stop, str):
        spec = dataclasses.replace(spec, stop=(spec.stop,))
    if spec.metrics is not None:
        spec = dataclasses.replace(spec, metrics=_check_metrics(spec, source))
    if spec.max_new_tokens < 1 or spec.temperature < 0:
        raise ConfigError(f"task {source}: needs max_new_tokens of at least 1 and a temperature of at least 0.")
    return spec


_WORDS = {str: "a text", int: "a whole number", float: "a number", Sequence: "a list of texts", type(None): "left out"}


def _check_types(spec: TaskSpec, source: str) -> None:
    """Raises `ConfigError` for the first field whose value is not of a type that `TaskSpec` says."""
    hints = typing.get_type_hints(TaskSpec)
    for name, hint in hints.items():
        value = getattr(spec, name)
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = tuple(typing.get_origin(kind) or kind for kind in kinds)
        # `stop` may be one text, and metrics are looked at by themselves.
        if (
            name == "metrics"
            or (name == "stop" and isinstance(value, str))
            or any(_is_a(value, kind) for kind in kinds)
        ):
            continue
        wanted = " or ".join(_WORDS[kind] for kind in kinds)
        raise ConfigError(f"task {source}: {name} must be {wanted}, got {value!r}.")


def _is_a(value: Any, kind: Any) -> bool:
    if kind is Sequence:
        return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _check_metrics(spec: TaskSpec, source: str) -> dict[str, dict[str, Any]]:
    from hf_gpt.evaluation.loading import metric_names

    given = dict.fromkeys(spec.metrics) if isinstance(spec.metrics, (list, tuple)) else spec.metrics
    if not isinstance(given, Mapping):
        raise ConfigError(f"task {source}: metrics must be names, each with its options or nothing, got {given!r}.")
    if spec.kind in _FIXED and given:
        raise ConfigError(f"task {source}: the metrics of {spec.kind} are fixed. Leave metrics out.")
    for name in given:
        if name not in metric_names():
            raise ConfigError(f"task {source}: there is no metric {name!r}{did_you_mean(str(name), metric_names())}")
    return {name: dict(options or {}) for name, options in given.items()}
