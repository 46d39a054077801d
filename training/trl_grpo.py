"""A discriminator as the reward of `trl.GRPOTrainer`, trained on while the generator is.

    from trl import GRPOConfig, GRPOTrainer

    real = {row["prompt"]: row["completion"] for row in rows}
    reward = CoTrainedDiscriminator(discriminator, tokenizer, real=real)
    trainer = GRPOTrainer(
        model, reward_funcs=reward, args=GRPOConfig(...), train_dataset=rows, callbacks=[reward.callback]
    )
    trainer.train()

TRL keeps its rewards fixed; here each batch of completions that the reward sees is remembered, and the callback trains
the discriminator on it, with the real completions of the same prompts, after each step. `AdversarialTrainer` has what
this lacks: warm-up, replay, gate, monitors, the discriminator in checkpoints, several processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from hf_gpt.adversarial.data.dataset import SpecialTokens, TextCollator
from hf_gpt.adversarial.discriminator.losses import bradley_terry_loss
from hf_gpt.generation.scoring.discriminator import discriminator_logits, sequence_scores
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens


class CoTrainedDiscriminator:
    """A reward function for TRL: the logit of a prompt and its completion together.

    Args:
        discriminator: A sequence classifier with one label that reads the generator's tokens.
        tokenizer: Of both models.
        real: The real completion of each prompt.
        learning_rate: Of the discriminator's AdamW.
        max_completion_length: Tokens that a real completion is cut to: that of `GRPOConfig`.

    Raises:
        TokensError: the discriminator has another tokenizer.

    Attributes:
        callback: To be given to the trainer; it updates the discriminator after each step.
        losses: Of the updates.
    """

    # TRL names a reward's log by it.
    __name__ = "discriminator"

    def __init__(
        self,
        discriminator: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        real: Mapping[str, str],
        learning_rate: float = 1e-4,
        max_completion_length: int = 256,
    ):
        check_shared_tokens(None, discriminator, tokenizer)
        self.discriminator, self.tokenizer, self.real = discriminator, tokenizer, real
        self.max_completion_length = max_completion_length
        self.tokens = SpecialTokens.of(discriminator, tokenizer)
        self.optimizer = torch.optim.AdamW(discriminator.parameters(), lr=learning_rate, betas=(0.5, 0.999))
        self.waiting: list[tuple[str, list[int]]] = []
        self.losses: list[float] = []
        self.callback = _UpdateDiscriminator(self)

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float]:
        """Logits of the completions, which are remembered for the next update."""
        texts = [(prompt, list(ids)) for prompt, ids in zip(prompts, completion_ids, strict=True)]
        self.waiting += texts
        batch = self._batch(texts)
        return sequence_scores(self.discriminator, batch["input_ids"], batch["attention_mask"]).tolist()

    def update(self) -> None:
        """One step on the completions seen since the last one, each against its prompt's real one (GAD)."""
        if not self.waiting:
            return
        texts, self.waiting = self.waiting, []
        real = self._batch([(prompt, self._real_ids(prompt)) for prompt, _ in texts])
        generated = self._batch(texts)
        self.discriminator.train()
        scores = [
            discriminator_logits(self.discriminator, x["input_ids"], x["attention_mask"]) for x in (real, generated)
        ]
        loss = bradley_terry_loss(*scores)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), 1.0)
        self.optimizer.step()
        self.losses.append(loss.item())

    def _real_ids(self, prompt: str) -> list[int]:
        ids = self.tokenizer(self.real[prompt], add_special_tokens=False)["input_ids"]
        return [*ids, self.tokens.eos][: self.max_completion_length]

    def _batch(self, texts: Sequence[tuple[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        rows = [
            {
                "prompt_ids": self.tokenizer(prompt, add_special_tokens=False)["input_ids"],
                "completion_ids": list(ids),
                "index": 0,
            }
            for prompt, ids in texts
        ]
        device = self.discriminator.device
        return {name: tensor.to(device) for name, tensor in TextCollator(self.tokens.pad)(rows).items()}


class _UpdateDiscriminator(TrainerCallback):
    def __init__(self, owner: CoTrainedDiscriminator):
        self.owner = owner

    def on_step_end(self, args, state, control, **kwargs):
        self.owner.update()
