"""Rollouts by a vLLM server, through TRL's client.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}'
    AdversarialTrainer(model, ..., rollout_function=VllmRollout.connect("http://localhost:8000", device="cuda:0"))

The server gets the generator's weights whenever they have changed. The generator itself computes log-probabilities
again, so ratios of policies are exact whatever the server rounds. The server has its own random numbers: a resumed run
continues from the same state, but samples other texts.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from hf_gpt.data.collators import pad_rows
from hf_gpt.errors import ConfigError
from hf_gpt.generation.decoding.fingerprint import digests
from hf_gpt.generation.sampling.distribution import SamplingConfig, pack
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.generation.scoring.logprobs import completion_logits, join, token_logps, unwrap
from hf_gpt.training.distributed.sharding import local


logger = logging.getLogger(__name__)

# Mean difference in nats per token of the server's log-probabilities and ours that rounding does not explain.
MOST_DIFFERENCE = 0.1


class VllmClient(Protocol):
    """What is used of `trl.generation.vllm_client.VLLMClient`."""

    def generate(self, prompts: list[list[int]], **settings: Any) -> dict[str, Any]: ...

    def update_named_params(
        self, metadata: list[tuple[str, str, list[int]]], named_params: Iterator[tuple[str, torch.Tensor]]
    ) -> None: ...


class VllmRollout:
    """Samples as `hf_gpt.generation.sampling.rollout.rollout` does, on a vLLM server.

    Args:
        client: In the first process, connected to the server, with its weight update group; None in the others.

    Attributes:
        syncs: How often weights were sent.
        difference: Mean absolute difference, in nats per token, of the server's latest log-probabilities and ours;
            None where temperature or truncation make them those of another distribution.
    """

    def __init__(self, client: VllmClient | None):
        self.client = client
        self.syncs = 0
        self.difference: float | None = None
        self._sent: tuple[Any, ...] | None = None
        self._warned = False

    @classmethod
    def connect(cls, base_url: str, device: torch.device | str | int = 0, timeout: float = 120.0) -> "VllmRollout":
        """Connects the first process to a server that runs; the others go through it.

        Args:
            base_url: As `http://localhost:8000`.
            device: The generator's, from which weights are sent; a CUDA device.
            timeout: Seconds to wait for the server.

        Raises:
            ConfigError: TRL or vLLM are not installed, or the server does not answer or takes no weights.
        """
        if _rank() > 0:
            return cls(None)
        try:
            from trl.generation.vllm_client import VLLMClient

            client = VLLMClient(base_url=base_url, connection_timeout=timeout)
            client.init_communicator(device=device)
        except ImportError as error:
            raise ConfigError(f"rollouts by vLLM need TRL and vLLM: pip install 'trl[vllm]' ({error}).") from error
        except (ConnectionError, OSError, RuntimeError, NotImplementedError) as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"no rollouts by the vLLM server at {base_url}: {first_line}") from error
        return cls(client)

    def __call__(
        self,
        model: nn.Module,
        prompt_ids: torch.Tensor,
        prompt_mask: torch.Tensor | None = None,
        *,
        sampling: SamplingConfig,
        batch_size: int | None = None,
        **_: Any,
    ) -> Rollout:
        """Completions of prompts, as `rollout` gives them; `uniforms` are not used.

        Raises:
            ConfigError: the generator is an encoder-decoder.
        """
        if unwrap(model).config.is_encoder_decoder:
            raise ConfigError("rollouts by vLLM are for decoders. Leave the server out for an encoder-decoder.")
        self.sync(model)
        prompt_mask = torch.ones_like(prompt_ids) if prompt_mask is None else prompt_mask
        prompts = [ids[kept].tolist() for ids, kept in zip(prompt_ids, prompt_mask.bool(), strict=True)]
        settings = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        # Older servers and clients do not know min_p.
        settings |= {"n": sampling.num_return_sequences} | ({"min_p": sampling.min_p} if sampling.min_p else {})
        end = {"stop_token_ids": sampling.end_tokens} if sampling.end_tokens else {"ignore_eos": True}
        completions, server_logps = self._generate(
            prompts, max_tokens=sampling.max_new_tokens, logprobs=0, generation_kwargs=end, **settings
        )
        device = next(model.parameters()).device
        samples = _assemble(prompt_ids, prompt_mask, completions, sampling, device)
        samples = _with_logps(model, samples, sampling, batch_size or len(samples))
        self._compare(samples, server_logps if sampling.is_plain else None)
        return samples

    def sync(self, model: nn.Module) -> None:
        """Sends the weights to the server if they have changed. All processes call it."""
        state = (id(model), digests(local(parameter) for parameter in model.parameters()))
        if not _anyone(state != self._sent):
            return
        weights = list(_named_weights(model))
        if self.client is None:
            for _, parameter in weights:
                _whole(parameter)
        else:
            metadata = [(name, str(p.dtype).removeprefix("torch."), list(p.shape)) for name, p in weights]
            self.client.update_named_params(metadata, ((name, _whole(parameter)) for name, parameter in weights))
            if hasattr(self.client, "reset_prefix_cache"):
                # It holds keys and values of the old weights.
                self.client.reset_prefix_cache()
        self._sent, self.syncs = state, self.syncs + 1

    def _generate(self, prompts: list[list[int]], **settings: Any) -> tuple[list[list[int]], list[Any]]:
        """This process's completions and the server's log-probabilities of their tokens."""
        world = dist.get_world_size() if _is_distributed() else 1
        everyones: list[Any] = [prompts]
        if world > 1:
            everyones = [None] * world
            dist.all_gather_object(everyones, prompts)
        answers: list[Any] = [None]
        if self.client is not None:
            found = self.client.generate([prompt for part in everyones for prompt in part], **settings)
            answers = [(found["completion_ids"], found["logprobs"])]
        if world > 1:
            dist.broadcast_object_list(answers, src=0)
        completions, logprobs = answers[0]
        start = sum(map(len, everyones[: _rank()])) * settings["n"]
        mine = slice(start, start + len(prompts) * settings["n"])
        logps = [] if logprobs is None else [[token[0] for token in row] for row in logprobs[mine]]
        return completions[mine], logps

    def _compare(self, samples: Rollout, server_logps: Sequence[Sequence[float | None]] | None) -> None:
        self.difference = None
        if not server_logps:
            return
        lengths = samples.completion_mask.sum(-1).long().tolist()
        gaps = [
            abs(ours - theirs)
            for row, length, other in zip(samples.logps.tolist(), lengths, server_logps, strict=True)
            for ours, theirs in zip(row[:length], other[:length], strict=True)
            if theirs is not None
        ]
        if not gaps:
            return
        self.difference = sum(gaps) / len(gaps)
        if self.difference > MOST_DIFFERENCE and not self._warned:
            self._warned = True
            logger.warning(
                "the vLLM server's log-probabilities differ by %.3f nats per token from the generator's: it samples "
                "another model. Start it from the generator's checkpoint, in the same dtype.",
                self.difference,
            )


def _named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    if hasattr(model, "peft_config"):
        raise ConfigError(
            "the vLLM server takes whole weights, not adapters. Train without an adapter, or leave the server out."
        )
    return unwrap(model).named_parameters()


@torch.no_grad()
def _anyone(changed: bool) -> bool:
    """Whether it is so in any process: a shard may stay as it is while others change."""
    if not _is_distributed():
        return changed
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, changed)
    return any(everyones)


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    parameter = parameter.detach()
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def _assemble(prompt_ids, prompt_mask, completions, sampling: SamplingConfig, device) -> Rollout:
    number, pad = sampling.num_return_sequences, sampling.padding_token
    kept = [_until_end(ids, sampling.end_tokens) for ids in completions]
    ids, mask = pad_rows(kept, pad)
    mask = mask.float()
    prompt_ids, prompt_mask = (part.cpu().repeat_interleave(number, 0) for part in (prompt_ids, prompt_mask))
    sequences, attention_mask = join(prompt_ids, prompt_mask, ids, mask, pad)
    return Rollout(
        sequences=sequences,
        attention_mask=attention_mask,
        completions=ids,
        completion_mask=mask,
        logps=torch.zeros_like(mask),
        prompt_length=prompt_mask.long().sum(-1),
    ).to(device)


def _until_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    first = next((position for position, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[: first + 1])


@torch.no_grad()
def _with_logps(model: nn.Module, samples: Rollout, sampling: SamplingConfig, batch_size: int) -> Rollout:
    """The same with log-probabilities and support by our own logits."""
    sizes = [len(part) for part in torch.arange(len(samples)).split(batch_size)]
    logps, supports = [], []
    with evaluating(model):
        for part in samples.split(sizes):
            width = part.completions.shape[1]
            logits = completion_logits(model, part.sequences, part.attention_mask, part.prompt_length, width)
            support = None
            if sampling.is_truncated:
                # Rounding differs: what the server has sampled is in the support.
                support = pack(sampling.support(logits).scatter_(-1, part.completions[..., None], True))
                supports.append(support)
            logps.append(token_logps(sampling.policy_logits(logits, support), part.completions))
    found = torch.cat(logps).masked_fill(~samples.completion_mask.bool(), 0.0)
    return dataclasses.replace(samples, logps=found, support=torch.cat(supports) if supports else None)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _rank() -> int:
    return dist.get_rank() if _is_distributed() else 0
