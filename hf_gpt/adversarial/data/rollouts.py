"""Rollouts for training, resumable, and the same for any number of processes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.data.dataset import SpecialTokens
from hf_gpt.adversarial.data.replay import GeneratedText
from hf_gpt.adversarial.discriminator.update import Batch
from hf_gpt.data.collators import pad_rows
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from hf_gpt.generation.sampling.rollout import Rollout, rollout


RolloutFunction = Callable[..., Rollout]

# Kinds of several processes that each have all weights, unless the arguments shard them.
_WHOLE = ("MULTI_CPU", "MULTI_GPU")


class Collector:
    """Samples completions of prompts.

    Each process makes the random numbers of all processes and uses its own share.

    Args:
        args: The sampling options.
        accelerator: The trainer's.
        tokens: The special tokens.
        rollout_function: Another engine in place of `hf_gpt.generation.sampling.rollout.rollout`, with its arguments
            and result. Its `logps` are those of the distribution that it sampled from.
        seed: Of the texts.
    """

    def __init__(
        self,
        args: AdversarialConfig,
        accelerator: Accelerator,
        tokens: SpecialTokens,
        rollout_function: RolloutFunction | None,
        seed: int,
    ):
        self.args, self.accelerator, self.tokens = args, accelerator, tokens
        self.rollout_function = rollout_function or rollout
        self.generator = torch.Generator().manual_seed(seed)

    def sample(
        self,
        model: nn.Module,
        rows: Sequence[Mapping[str, Any]],
        num_return_sequences: int = 1,
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> Rollout:
        """Completions of the prompts of rows, on the accelerator's device.

        Args:
            model: The generator.
            rows: This process's rows, as many as each other's.
            num_return_sequences: Completions of each, adjacent.
            generator: In place of the one whose state is saved.
            settings: In place of the arguments' temperature and so on.
        """
        return self.sample_all(model, [(rows, num_return_sequences)], generator, **settings)[0]

    def sample_all(
        self,
        model: nn.Module,
        requests: Sequence[tuple[Sequence[Mapping[str, Any]], int]],
        generator: torch.Generator | None = None,
        activation_cache: ActivationCache | None = None,
        **settings: Any,
    ) -> list[Rollout]:
        """The rollouts of several calls of `sample`, in one batch: the same texts in less time.

        Args:
            model: The generator.
            requests: Rows and the number of completions of each.
            generator, settings: As for `sample`.
            activation_cache: As for `rollout`, of the first request.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        sizes = [len(rows) * number for rows, number in requests]
        uniforms = []
        for size in sizes:
            shape = (world * size, self.args.max_new_tokens)
            numbers = torch.rand(shape, dtype=torch.float64, generator=generator or self.generator)
            uniforms.append(numbers[rank * size : (rank + 1) * size])
        if len(requests) == 1:
            rows, number = requests[0]
        else:
            rows, number = [row for rows, times in requests for row in rows for _ in range(times)], 1
        prompt_ids, prompt_mask = self._prompts(rows)
        settings |= {"eos_token_id": self.tokens.eos, "pad_token_id": self.tokens.pad}
        options = {"sampling": dataclasses.replace(self.args.sampling, num_return_sequences=number, **settings)}
        # Other functions need not accept these.
        if self.rollout_function is rollout:
            options["activation_cache"] = activation_cache
            options["weight_dtype"] = self.args.rollout_weight_dtype or ("bfloat16" if self.args.bf16 else None)
        samples = self.rollout_function(
            model,
            prompt_ids,
            prompt_mask,
            uniforms=torch.cat(uniforms),
            batch_size=self.args.rollout_batch_size,
            synced=world > 1 and (self.args.is_sharded or self.accelerator.distributed_type.value not in _WHOLE),
            **options,
        )
        if activation_cache is not None:
            activation_cache.narrow(sizes[0])
        return samples.to(self.accelerator.device).split(sizes)

    def gather(self, samples: Rollout, indices: Sequence[int]) -> tuple[list[GeneratedText], torch.Tensor]:
        """All processes' texts, in their order, with the sums of their log-probabilities (rows,).

        Args:
            samples: This process's texts.
            indices: Row of the training data that each text's prompt came from.
        """
        columns = {
            "sequences": samples.sequences,
            "mask": samples.attention_mask,
            "prompt_length": samples.prompt_length,
            "index": torch.tensor(list(indices), device=samples.sequences.device),
            "logps": (samples.logps * samples.completion_mask).sum(-1),
        }
        if self.accelerator.num_processes > 1:
            for name in ("sequences", "mask"):
                columns[name] = self.accelerator.pad_across_processes(columns[name], dim=1)
            columns = {name: self.accelerator.gather(tensor) for name, tensor in columns.items()}
        columns = {name: tensor.cpu() for name, tensor in columns.items()}
        lengths = columns["mask"].sum(-1).tolist()
        generated = []
        for row, (length, prompt) in enumerate(zip(lengths, columns["prompt_length"].tolist(), strict=True)):
            ids = columns["sequences"][row, :length].tolist()
            generated.append(GeneratedText(int(columns["index"][row]), tuple(ids[:prompt]), tuple(ids[prompt:])))
        return generated, columns["logps"]

    def _prompts(self, rows: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        return pad_rows([row["prompt_ids"] for row in rows], self.tokens.pad, "left")


def as_batch(texts: Rollout | Mapping[str, torch.Tensor]) -> Batch:
    """Generated texts, or a collated batch of real ones, as the discriminator reads them."""
    if isinstance(texts, Rollout):
        return Batch(
            texts.sequences, texts.attention_mask, texts.prompt_length, texts.completions, texts.completion_mask
        )
    return Batch(**{name: texts[name] for name in Batch.__dataclass_fields__})


def prompt_rows(batch: Batch) -> list[dict[str, list[int]]]:
    """The prompts of texts, as `Collector.sample` takes them."""
    lengths = batch.prompt_length.tolist()
    return [{"prompt_ids": ids[:length].tolist()} for ids, length in zip(batch.input_ids, lengths, strict=True)]


def prompt_mask(batch: Batch) -> torch.Tensor:
    """(R, P) int64, 1 at tokens of prompts."""
    positions = torch.arange(int(batch.prompt_length.max()), device=batch.prompt_length.device)
    return (positions < batch.prompt_length[:, None]).long()
