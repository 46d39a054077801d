"""A tiny trained checkpoint and what it says: what every client's tokens and logits are held against."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

import hf_gpt  # noqa: F401 - its models are registered with the Auto classes
from hf_gpt.data.tokenizer import train_tokenizer


PROMPTS = ("First Citizen:\n", "MENENIUS:\nWhat", "The people", "ROMEO:\nO, she doth")
NUM_NEW_TOKENS = 32
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper + ':\n' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ROMEO:\n' }}{% endif %}"
)
# What of the architecture is written as one of another family by `hf-gpt convert --to`.
FORMS = {
    "hf_gpt": {},
    "llama": {"hidden_act": "silu", "is_gated_act": True, "use_qk_norm": False, "num_key_value_heads": 1},
    "gpt2": {
        "position_embedding_type": "learned",
        "norm_type": "layernorm",
        "hidden_act": "gelu_new",
        "use_qk_norm": False,
        "attention_bias": True,
        "mlp_bias": True,
        "norm_eps": 1e-5,
        # llama.cpp knows GPT-2 with no other width.
        "intermediate_size": 256,
    },
}
_CORPUS = Path(__file__).parents[2] / "hf_gpt/data/corpora/tinyshakespeare.txt"
_LENGTH = 64


@dataclass
class Reference:
    """A checkpoint, opened."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def prompt_ids(self) -> list[list[int]]:
        return [self.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]

    @cached_property
    def greedy(self) -> list[list[int]]:
        """The greedy continuation of each prompt."""
        return [self.continue_greedily(ids) for ids in self.prompt_ids]

    def continue_greedily(self, ids: list[int], max_new_tokens: int = NUM_NEW_TOKENS) -> list[int]:
        """New tokens alone."""
        inputs = torch.tensor([ids])
        options = {"do_sample": False, "max_new_tokens": max_new_tokens, "min_new_tokens": max_new_tokens}
        return self.model.generate(inputs, attention_mask=torch.ones_like(inputs), **options)[0, len(ids) :].tolist()


def make_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE with a chat template."""
    tokenizer = train_tokenizer([_text()], 400)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_reference(folder: Path, form: str = "hf_gpt", steps: int = 150) -> Reference:
    """Trains a model for seconds, so that its argmax is clear and its tokens vary, and saves it with its tokenizer.

    Args:
        folder: Where to.
        form: Key of `FORMS`.
        steps: Updates.
    """
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model("hf_gpt", **{**sizes(tokenizer), **FORMS[form]})
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.tensor(tokenizer(_text())["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    for _ in range(steps):
        starts = torch.randint(len(ids) - _LENGTH, (8,)).tolist()
        rows = torch.stack([ids[start : start + _LENGTH] for start in starts])
        model(input_ids=rows, labels=rows, use_cache=False).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    reference = Reference(folder, model, tokenizer)
    assert len({token for row in reference.greedy for token in row}) > 20, reference.greedy
    return reference


def sizes(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Settings of a tiny model: heads of 32, the least that vLLM's attention on a CPU takes."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def count_equal(found: list[list[int]], expected: list[list[int]]) -> tuple[int, int]:
    """How many tokens are equal, place by place, and how many there are."""
    assert [len(row) for row in found] == [len(row) for row in expected]
    pairs = [pair for rows in zip(found, expected, strict=True) for pair in zip(*rows, strict=True)]
    return sum(ours == theirs for ours, theirs in pairs), len(pairs)


def _text() -> str:
    return _CORPUS.read_text(encoding="utf-8")[:1_000]
