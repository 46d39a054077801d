"""A language with a known density: the oracle of synthetic text-GAN benchmarks."""

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout, rollout


class RandomLanguage(nn.Module):
    """
    An LSTM with weights sampled from N(0, 1), whose logits are multiplied by `sharpness`. Texts begin after token 0.

    Source: the oracle of SeqGAN, Yu et al. 2017, arXiv:1609.05473, sec. 4 (its own weights are not used).
    """

    def __init__(self, vocab_size: int, hidden_size: int = 32, sharpness: float = 1.0, seed: int = 0):
        super().__init__()
        self.config = PreTrainedConfig()
        self.sharpness = sharpness
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.requires_grad_(False)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: tuple[torch.Tensor, torch.Tensor] | None = None,
        use_cache: bool = False,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V) of the token after each of `input_ids` (B, T), which are padded at the right if at all.

        With `use_cache`, `past_key_values` is the state after the last of them, from which the next call goes on.
        """
        hidden, state = self.lstm(self.embedding(input_ids), past_key_values)
        logits = self.sharpness * self.head(hidden)
        return CausalLMOutputWithPast(logits=logits, past_key_values=state if use_cache else None)


def sample_texts(
    model: nn.Module, count: int, length: int, seed: int, temperature: float = 1.0, batch_size: int | None = None
) -> Rollout:
    """Texts of a model of such a language, by the seed."""
    return rollout(
        model,
        sampling=SamplingConfig(temperature, max_new_tokens=length, num_return_sequences=count, bos_token_id=0),
        generator=torch.Generator().manual_seed(seed),
        batch_size=batch_size,
    )
