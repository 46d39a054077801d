"""Reward functions with the signature of TRL's `reward_funcs`: texts in, one number for each out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_gpt.adversarial.monitoring.diagnostics import unpadded
from hf_gpt.errors import ConfigError, UserError
from hf_gpt.generation.sampling.rollout import Rollout


TextRewardFunction = Callable[..., Sequence[float | None] | torch.Tensor]


class RewardError(UserError):
    """A reward function cannot be called with what there is, or returned something else than a number for each text."""


class TextRewards:
    """The weighted sum of several reward functions on texts.

    A function is called with `prompts`, `completions`, `completion_ids` and the further columns of the data set, as
    lists with an entry for each text. It gets those that it names, or all if it has `**kwargs`. It returns a number
    for each text. None stands for a text that it does not judge, which counts as 0.

    Prompts and completions are strings. Where the data set has lists of messages, prompts are such lists, and
    completions are lists of one message of the assistant.

    Source: `reward_funcs` of TRL's `GRPOTrainer` (https://huggingface.co/docs/trl/grpo_trainer).

    Args:
        functions: One function, or several.
        weights: Of each. None: 1 for all.
        tokenizer: Decodes the texts.

    Attributes:
        names: Of the functions, as they are logged.

    Raises:
        ConfigError: no function, a function that cannot be called, another number of weights, or no tokenizer.
    """

    def __init__(
        self,
        functions: TextRewardFunction | Sequence[TextRewardFunction],
        weights: Sequence[float] | None,
        tokenizer: PreTrainedTokenizerBase | None,
    ):
        self.functions = [functions] if callable(functions) else list(functions)
        if not self.functions or not all(map(callable, self.functions)):
            raise ConfigError("reward_funcs must be a function or a list of functions of prompts and completions.")
        self.weights = [1.0] * len(self.functions) if weights is None else [float(weight) for weight in weights]
        if len(self.weights) != len(self.functions):
            raise ConfigError(
                f"there are {len(self.weights)} reward_weights for {len(self.functions)} reward_funcs. Give as many."
            )
        if tokenizer is None:
            raise ConfigError("reward_funcs read texts, so they need processing_class, the tokenizer.")
        self.tokenizer = tokenizer
        self.names = _distinct([getattr(function, "__name__", type(function).__name__) for function in self.functions])

    def __call__(self, samples: Rollout, rows: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, dict[str, float]]:
        """The weighted sum of each text (B,), float32, and the mean of each function by its name.

        Args:
            samples: Generated texts.
            rows: For each of them the row of `TextRows` whose prompt it completes.

        Raises:
            RewardError: a function needs a column that the data set lacks, or returned something else than a finite
                number for each text.
        """
        given = self._texts(samples, rows)
        total, means = torch.zeros(len(samples)), {}
        for function, weight, name in zip(self.functions, self.weights, self.names, strict=True):
            values = _numbers(function(**_accepted(function, given, name)), len(samples), name)
            known = values[~values.isnan()]
            means[name] = known.mean().item() if len(known) else float("nan")
            total += weight * values.nan_to_num(nan=0.0)
        return total.to(samples.sequences.device), means

    def _texts(self, samples: Rollout, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        ids = unpadded(samples.completions, samples.completion_mask)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        prompts = [self._prompt(row) for row in rows]
        completions = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        names = sorted(
            {name for row in rows for name in row.get("columns", {}) if name not in ("prompt", "completion")}
        )
        columns = {name: [row.get("columns", {}).get(name) for row in rows] for name in names}
        return {**columns, "prompts": prompts, "completions": completions, "completion_ids": ids}

    def _prompt(self, row: Mapping[str, Any]) -> Any:
        if "prompt" in row.get("columns", {}):
            return row["columns"]["prompt"]
        return self.tokenizer.decode(row["prompt_ids"], skip_special_tokens=True)


def read_reward_functions(
    functions: TextRewardFunction | Sequence[TextRewardFunction] | None,
    weights: Sequence[float] | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> TextRewards | None:
    """The `TextRewards` of `reward_funcs`, if there are any.

    Raises:
        ConfigError: weights without functions, or what `TextRewards` refuses.
    """
    if functions is None and weights is not None:
        raise ConfigError("reward_weights belong to reward_funcs, and there are none. Give both or none.")
    return None if functions is None else TextRewards(functions, weights, tokenizer)


def takes_texts(function: Any) -> bool:
    """Whether a reward function has TRL's signature: it names `prompts` or `completions`."""
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "completions" in names or "prompts" in names


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind each that came before: functions of one name are logged apart."""
    counts = [names[:position].count(name) for position, name in enumerate(names)]
    return [f"{name}_{count + 1}" if count else name for name, count in zip(names, counts, strict=True)]


def _accepted(function: TextRewardFunction, given: Mapping[str, list[Any]], name: str) -> dict[str, list[Any]]:
    parameters = inspect.signature(function).parameters
    needed = [key for key, parameter in parameters.items() if _is_needed(parameter) and key not in given]
    if needed:
        raise RewardError(
            f"the reward function {name} needs {', '.join(needed)}. It can have {', '.join(given)}: give the data set "
            "that column, or the argument a default."
        )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(given)
    return {name: values for name, values in given.items() if name in parameters}


def _is_needed(parameter: inspect.Parameter) -> bool:
    is_single = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return is_single and parameter.default is parameter.empty


def _numbers(values: Any, count: int, name: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        found = values.detach().float().cpu()
    else:
        try:
            found = torch.tensor([float("nan") if value is None else float(value) for value in values])
        except (TypeError, ValueError) as error:
            raise RewardError(
                f"the reward function {name} returned {type(values).__name__}. Return a list of {count} numbers, one "
                "for each completion, or a tensor."
            ) from error
    if found.shape != (count,):
        raise RewardError(
            f"the reward function {name} returned {tuple(found.shape)} values for {count} completions. Return one "
            "number for each."
        )
    if found.isinf().any():
        raise RewardError(
            f"the reward function {name} returned an infinite number for completion {int(found.isinf().nonzero()[0])} "
            "of a batch. Return a finite one, or None for a text that it does not judge."
        )
    return found
