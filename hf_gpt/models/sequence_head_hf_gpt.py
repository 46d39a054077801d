"""What every classifier of sequences does with its last hidden states: a score of the text, or of every prefix."""

import torch

from .pooling_hf_gpt import token_mask


class HfGptSequenceHeadMixin:
    """For a classifier with a `model`, a `pooler` and a linear layer `score`."""

    def _pool(
        self,
        hidden_states: torch.Tensor,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        of_prefixes: bool = False,
    ) -> torch.Tensor:
        mask = token_mask(input_ids, attention_mask, hidden_states, self.config.pad_token_id)
        return self.pooler(hidden_states, mask, of_prefixes=True) if of_prefixes else self.pooler(hidden_states, mask)

    def _score(self, pooled: torch.Tensor) -> torch.Tensor:
        pooled = self.dropout(pooled)
        if self.config.classifier_hidden_size is not None:
            pooled = self.act_fn(self.dense(pooled))
        return self.score(pooled)

    def prefix_logits(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        The score of every prefix in one pass, of shape `(batch_size, sequence_length, num_labels)`: entry `t` is the
        logit of the tokens up to `t`; at padding it means nothing.

        Raises:
            ValueError: a token of this model sees the ones after it.
        """
        if not self.config.is_causal:
            raise ValueError("is_causal=False: a prefix has no score of its own within a longer text.")
        outputs = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, use_cache=False
        )
        return self._score(self._pool(outputs.last_hidden_state, input_ids, attention_mask, of_prefixes=True))


__all__ = ["HfGptSequenceHeadMixin"]
