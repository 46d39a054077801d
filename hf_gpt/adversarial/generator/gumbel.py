"""Straight-through Gumbel samples, through which the discriminator's gradient flows (RelGAN)."""

from dataclasses import dataclass

import torch
from torch import nn

from hf_gpt.adversarial.generator.losses import straight_through_gumbel
from hf_gpt.generation.embeddings import embedding_table, vocabulary_size
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.scoring.discriminator import accepted_arguments
from hf_gpt.generation.scoring.logprobs import left_padded, positions_of, unwrap


_PLAIN = SamplingConfig()


@dataclass
class SoftRollout:
    """Generated texts with gradient.

    Attributes:
        prompt_ids, prompt_mask: (B, P) int64, padded at the left.
        samples: (B, C, V) one-hot vectors with gradient, 0 after the end of text.
        mask: (B, C) int64, 1 up to and including the end of text.
    """

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    samples: torch.Tensor
    mask: torch.Tensor

    def embed(self, embedding: nn.Embedding) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, P + C, d) under another model's table, with gradient, and their mask (B, P + C)."""
        prompts = embedding(self.prompt_ids) * self.prompt_mask[..., None]
        table = embedding_table(embedding, self.samples.shape[-1])
        completions = self.samples.to(table.dtype) @ table
        return torch.cat([prompts, completions], 1), torch.cat([self.prompt_mask, self.mask], 1)


def gumbel_rollout(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    *,
    max_new_tokens: int,
    temperature: float,
    sampling: SamplingConfig = _PLAIN,
    eos_token_id: int,
    generator: torch.Generator | None = None,
) -> SoftRollout:
    """Samples with gradient through every token, also by way of the model's next inputs.

    Args:
        model: A causal language model that takes `inputs_embeds`.
        prompt_ids: (B, P) int64.
        prompt_mask: (B, P).
        max_new_tokens: Most tokens of a completion.
        temperature: Of the relaxed samples. Lower means less bias and more variance; tokens stay the same.
        sampling: The distribution that tokens are sampled from.
        eos_token_id: Ends a text.
        generator: Source of the noise, on the model's device.
    """
    prompt_ids, mask = left_padded(prompt_ids, prompt_mask)
    inner = unwrap(model)
    embedding, takes_positions = inner.get_input_embeddings(), "position_ids" in accepted_arguments(inner)
    table = embedding_table(embedding, vocabulary_size(inner))
    prompt_mask, embeddings, cache = mask, embedding(prompt_ids), None
    alive = torch.ones(len(mask), dtype=torch.bool, device=mask.device)
    samples, kept = [], []
    for _ in range(max_new_tokens):
        inputs = {"inputs_embeds": embeddings, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        if takes_positions:
            inputs["position_ids"] = positions_of(mask)[:, -embeddings.shape[1] :]
        outputs = model(**inputs)
        cache = outputs.past_key_values
        logits = sampling.policy_logits(outputs.logits[:, -1].float())
        sample = straight_through_gumbel(logits, temperature, generator)
        samples.append(sample * alive[:, None])
        kept.append(alive.long())
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        embeddings = (sample.to(table.dtype) @ table)[:, None]
        alive = alive & (sample.argmax(-1) != eos_token_id)
        if not alive.any():
            break
    return SoftRollout(prompt_ids, prompt_mask, torch.stack(samples, 1), torch.stack(kept, 1))
