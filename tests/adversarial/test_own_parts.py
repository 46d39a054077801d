"""Parts of a user's own: a plain module as discriminator, TRL's reward functions, texts as strings and messages."""

import math

import pytest
import torch
from torch import nn

from hf_gpt import AdversarialConfig, AdversarialTrainer, HfGptConfig, HfGptForCausalLM, train_discriminator
from hf_gpt.adversarial.data.dataset import SpecialTokens, TextRows
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.errors import ConfigError, CorpusError, UserError


TEXTS = [f"the {animal} sat on the {seat}" for animal in ("cat", "dog", "cow", "hen") for seat in ("mat", "log", "bin")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXTS), 300, model_max_length=64)


@pytest.fixture
def generator(tokenizer):
    torch.manual_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=len(tokenizer), max_position_embeddings=64, **ids))


class Bag(nn.Module):
    """A bag of words, as a user would write one."""

    def __init__(self, vocab_size: int, shape: str = "flat"):
        super().__init__()
        self.embedding, self.head, self.shape = nn.Embedding(vocab_size, 8), nn.Linear(8, 1), shape

    def forward(self, input_ids, attention_mask):
        weights = attention_mask[..., None].float()
        logits = self.head((self.embedding(input_ids) * weights).sum(1) / weights.sum(1).clamp(min=1))
        return {"flat": logits[:, 0], "column": logits, "wide": logits.expand(-1, 3)}[self.shape]


def make(folder, generator, tokenizer, texts=TEXTS, discriminator=None, estimator="reinforce", **others):
    settings = {name: others.pop(name) for name in list(others) if name not in ("reward_funcs", "reward_weights")}
    reward_function = settings.pop("reward_function", None)
    return AdversarialTrainer(
        generator,
        discriminator,
        AdversarialConfig(
            str(folder),
            max_steps=2,
            per_device_train_batch_size=4,
            max_new_tokens=8,
            mle_warmup_steps=0,
            discriminator_warmup_steps=0,
            gate_auc=0.0,
            estimator=estimator,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            **settings,
        ),
        texts,
        texts[:4],
        processing_class=tokenizer,
        reward_function=reward_function,
        **others,
    )


def weights(module):
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


@pytest.mark.parametrize("shape", ["flat", "column"])
def test_a_plain_module_learns_beside_the_generator(tmp_path, generator, tokenizer, shape):
    bag = Bag(len(tokenizer), shape)
    before = weights(bag), weights(generator)
    trainer = make(tmp_path, generator, tokenizer, discriminator=bag)
    trainer.train()
    assert not torch.equal(before[0], weights(bag)) and not torch.equal(before[1], weights(generator))
    trainer.save_model(str(tmp_path / "model"))
    assert list((tmp_path / "model").rglob("model*.safetensors"))


def test_a_plain_module_without_a_mask(tmp_path, generator, tokenizer):
    class Pooled(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.embedding, self.head = nn.Embedding(size, 8), nn.Linear(8, 1)

        def forward(self, tokens):
            return self.head(self.embedding(tokens).mean(1))

    make(tmp_path, generator, tokenizer, discriminator=Pooled(len(tokenizer))).train()


def test_a_plain_module_is_trained_alone(generator, tokenizer):
    bag = Bag(len(tokenizer))
    before = weights(bag)
    result = train_discriminator(
        generator, bag, TEXTS * 4, processing_class=tokenizer, max_new_tokens=8, epochs=2, learning_rate=0.01
    )
    assert not torch.equal(before, weights(bag)) and 0 <= result.auc <= 1


@pytest.mark.parametrize(
    "make_module, message",
    [
        (lambda size: Bag(size, "wide"), r"shape \(\d+, 3\).*one logit for each text"),
        (lambda size: Bag(20), "belongs to another tokenizer"),
        (lambda size: len, "reward_funcs"),
    ],
)
def test_what_is_no_discriminator_is_refused(tmp_path, generator, tokenizer, make_module, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, generator, tokenizer, discriminator=make_module(len(tokenizer))).train()


def count_the(prompts, completions, **kwargs):
    return [float(text.count("the")) for text in completions]


def shortness(completions, completion_ids):
    return torch.tensor([-0.1 * len(ids) for ids in completion_ids])


def test_reward_functions_take_the_place_of_a_discriminator(tmp_path, generator, tokenizer):
    before = weights(generator)
    trainer = make(
        tmp_path, generator, tokenizer, reward_funcs=[count_the, shortness], reward_weights=[1.0, 0.5], group_size=2
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward_mean" in entry]
    assert len(logs) == 2 and not torch.equal(before, weights(generator))
    for entry in logs:
        mean = entry["rewards/count_the/mean"] + 0.5 * entry["rewards/shortness/mean"]
        assert entry["reward_mean"] == pytest.approx(mean, abs=1e-4)


def test_reward_functions_add_to_the_discriminator(tmp_path, generator, tokenizer):
    def ten(completions, **kwargs):
        return [10.0] * len(completions)

    trainer = make(tmp_path, generator, tokenizer, discriminator=Bag(len(tokenizer)), reward_funcs=ten)
    trainer.train()
    assert all(8 < entry["reward_mean"] < 12 for entry in trainer.state.log_history if "reward_mean" in entry)


def test_a_reward_function_with_trls_signature_is_known_by_it(tmp_path, generator, tokenizer):
    trainer = make(tmp_path, generator, tokenizer, reward_function=count_the)
    assert trainer.reward_function is None and trainer.text_rewards.names == ["count_the"]


def test_reward_functions_get_the_columns_of_their_row(tmp_path, generator, tokenizer):
    rows = [{"prompt": f"the {word}", "completion": " sat", "answer": word} for word in ("cat", "dog", "cow", "hen")]
    seen = []

    def right(prompts, completions, answer, **kwargs):
        seen.extend(zip(prompts, answer, strict=True))
        return [None if word == "cow" else 1.0 for word in answer]

    make(tmp_path, generator, tokenizer, rows * 3, reward_funcs=right, group_size=2).train()
    assert len(seen) == 8 and all(prompt == f"the {answer}" for prompt, answer in seen)
    assert seen[0] == seen[1]


def test_texts_that_no_function_judges_count_as_zero(tmp_path, generator, tokenizer):
    def none(completions, **kwargs):
        return [None] * len(completions)

    trainer = make(tmp_path, generator, tokenizer, reward_funcs=[none, count_the])
    trainer.train()
    assert all("rewards/none/mean" not in entry for entry in trainer.state.log_history)


def test_functions_of_one_name_are_logged_apart(tmp_path, generator, tokenizer):
    functions = [lambda completions: [1.0] * len(completions), lambda completions: [3.0] * len(completions)]
    trainer = make(tmp_path, generator, tokenizer, reward_funcs=functions)
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "reward_mean" in entry)
    assert (entry["rewards/<lambda>/mean"], entry["rewards/<lambda>_2/mean"]) == (1.0, 3.0)


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda completions, **kwargs: [1.0], r"returned \(1,\) values for 4 completions"),
        (lambda completions, **kwargs: None, "returned NoneType"),
        (lambda completions, **kwargs: ["good"] * len(completions), "returned list"),
        (lambda completions, **kwargs: [float("inf")] * len(completions), "infinite number for completion 0"),
        (lambda completions, **kwargs: torch.full((len(completions),), -math.inf), "infinite number for completion 0"),
        (lambda completions, answer: [1.0] * len(completions), "needs answer. It can have prompts, completions"),
        (lambda completions, answer, **kwargs: [1.0] * len(completions), "needs answer"),
    ],
)
def test_other_results_of_reward_functions_are_named(tmp_path, generator, tokenizer, function, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, generator, tokenizer, reward_funcs=function).train()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"reward_funcs": []}, "a function or a list of functions"),
        ({"reward_funcs": [count_the], "reward_weights": [1, 2]}, "2 reward_weights for 1 reward_funcs"),
        ({"reward_weights": [1.0]}, "reward_weights belong to reward_funcs"),
        ({"reward_funcs": count_the, "estimator": "spin"}, "self-play"),
        ({"reward_funcs": count_the, "estimator": "weighted_likelihood"}, "reward_funcs do not go with --estimator"),
        ({"reward_funcs": count_the, "reward_function": lambda rollout: rollout.logps}, "do not go with a reward_func"),
        ({}, "nothing scores the texts"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, generator, tokenizer, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, generator, tokenizer, **settings)


def test_strings_are_texts(generator, tokenizer):
    special = SpecialTokens.of(generator, tokenizer)
    strings = TextRows(TEXTS, special, tokenizer, 16)
    rows = TextRows([{"text": text} for text in TEXTS], special, tokenizer, 16)
    assert [row["completion_ids"] for row in strings] == [row["completion_ids"] for row in rows]
    assert not strings.has_prompts


def test_messages_are_a_prompt_and_the_last_turn(generator, tokenizer):
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    special = SpecialTokens.of(generator, tokenizer)
    talk = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
    messages = TextRows([{"messages": talk}], special, tokenizer, 16)
    split = TextRows([{"prompt": talk[:1], "completion": talk[1:]}], special, tokenizer, 16)
    assert messages.has_prompts
    for name in ("prompt_ids", "completion_ids"):
        assert messages[0][name] == split[0][name]
    for wrong in (talk[:1], talk[1:], [*talk, talk[0]]):
        with pytest.raises(CorpusError, match="must end with a message of the assistant"):
            TextRows([{"messages": wrong}], special, tokenizer, 16)
    with pytest.raises(CorpusError, match="row 0 of the dataset is a int"):
        TextRows([3], special, tokenizer, 16)
