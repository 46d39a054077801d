"""Texts, replay and schedule, by hand."""

import pytest
import torch

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.data.dataset import (
    RowNumbers,
    SpecialTokens,
    TextCollator,
    TextRows,
    hold_out,
    warn_of_repeats,
)
from hf_gpt.adversarial.data.replay import GeneratedText, ReplayBuffer
from hf_gpt.adversarial.monitoring.history import ScoreWindow
from hf_gpt.adversarial.schedule import Phase, Schedule
from hf_gpt.errors import ConfigError, CorpusError
from tests.adversarial.players import make_trainer


TOKENS = SpecialTokens(bos=1, eos=2, pad=0)


@pytest.fixture(scope="module")
def tokenizer():
    from hf_gpt.data.tokenizer import train_tokenizer

    return train_tokenizer(["To be, or not to be, that is the question."], 280)


def test_rows_of_texts(tokenizer):
    tokens = SpecialTokens.of(None, tokenizer)
    (row,) = TextRows([{"text": "to be"}], tokens, tokenizer, 64)
    ids = tokenizer("to be", add_special_tokens=False)["input_ids"]
    assert row == {"prompt_ids": [tokens.bos], "completion_ids": [*ids, tokens.eos], "index": 0}
    (cut,) = TextRows([{"text": "to be"}], tokens, tokenizer, 1)
    assert cut["completion_ids"] == ids[:1]


def test_rows_of_prompts(tokenizer):
    tokens = SpecialTokens.of(None, tokenizer)
    rows = TextRows([{"prompt": "to be", "completion": " or not"}], tokens, tokenizer, 64, max_prompt_length=2)
    assert rows.has_prompts and tokenizer.decode(rows[0]["completion_ids"][:-1]) == " or not"
    assert rows[0]["prompt_ids"] == tokenizer("to be", add_special_tokens=False)["input_ids"][-2:]
    assert rows[0]["completion_ids"][-1] == tokens.eos


@pytest.mark.parametrize("lacking", [{}, {"completion_ids": None}])
def test_a_later_row_without_a_column_is_named(lacking):
    rows = [{"prompt_ids": [1], "completion_ids": [3, 2]}, {"prompt_ids": [1], **lacking}]
    with pytest.raises(CorpusError, match="row 1 of the dataset has no completion_ids, as row 0 has"):
        TextRows(rows, TOKENS, None, 8)


def test_a_special_token_spelled_out_stays_text(tokenizer):
    tokens = SpecialTokens.of(None, tokenizer)
    (row,) = TextRows([{"text": f"a{tokenizer.eos_token}b"}], tokens, tokenizer, 64)
    assert row["completion_ids"].count(tokens.eos) == 1


def test_collation():
    rows = [
        {"prompt_ids": [1, 5], "completion_ids": [6, 2], "index": 3},
        {"prompt_ids": [1], "completion_ids": [7, 8, 2], "index": 4},
    ]
    batch = TextCollator(0)(rows)
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2], [1, 7, 8, 2]]
    assert batch["labels"].tolist() == [[-100, -100, 6, 2], [-100, 7, 8, 2]]
    assert batch["completions"].tolist() == [[6, 2, 0], [7, 8, 2]]
    assert batch["completion_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["prompt_length"].tolist() == [2, 1] and batch["index"].tolist() == [3, 4]


def test_held_out_rows_are_apart():
    rows = TextRows([{"input_ids": [1, n + 3, 2]} for n in range(100)], TOKENS, None, 8)
    train, held_out = hold_out(rows, seed=0)
    tokens = [{row["completion_ids"][0] for row in part.rows} for part in (train, held_out)]
    assert len(held_out) == 10 and len(train) == 90 and not tokens[0] & tokens[1]
    assert [row["index"] for row in train.rows] == list(range(90))


def test_copies_of_a_text_are_on_one_side():
    texts = [{"input_ids": [1, n % 90 + 3, 2]} for n in range(100)]
    train, held_out = hold_out(TextRows(texts, TOKENS, None, 8), seed=0)
    tokens = [{row["completion_ids"][0] for row in part.rows} for part in (train, held_out)]
    assert len(held_out) == 10 and not tokens[0] & tokens[1]


def test_held_out_texts_that_are_trained_on_too_are_told(caplog, tmp_path):
    texts = [[{"input_ids": [1, n + 3, 2]} for n in part] for part in (range(90), range(87, 97))]
    warn_of_repeats(*(TextRows(part, TOKENS, None, 8) for part in texts))
    assert "3 of 10 held-out texts (30.0%) are among the training texts" in caplog.text
    caplog.clear()
    apart = [{"input_ids": [1, n + 3, 2]} for n in range(100)]
    warn_of_repeats(*hold_out(TextRows(apart, TOKENS, None, 8), seed=0))
    # Another prompt makes it another text.
    pairs = [[{"prompt_ids": [1, prompt], "completion_ids": [7, 2]}] * 10 for prompt in (4, 5)]
    warn_of_repeats(*(TextRows(part, TOKENS, None, 8) for part in pairs))
    assert caplog.text == ""
    make_trainer(tmp_path, texts=[{"input_ids": [1, 12, 2]}] * 40)
    assert "4 of 4 held-out texts (100.0%)" in caplog.text


def test_row_numbers_go_through_every_row_and_on_from_a_position():
    numbers = RowNumbers(5, seed=0)
    samples = numbers.take(3) + numbers.take(7)
    assert sorted(samples[:5]) == sorted(samples[5:]) == list(range(5)) and samples[:5] != samples[5:]
    other = RowNumbers(5, seed=0)
    other.position = 4
    assert other.take(6) == samples[4:]


def generated(count):
    return [GeneratedText(number, (1,), (number, 2)) for number in range(count)]


def test_replay_keeps_an_even_sample():
    """Each of 100 texts is kept with probability .1: over 400 buffers, each 40 times, with a deviation of 6."""
    kept = torch.zeros(100)
    for seed in range(400):
        buffer = ReplayBuffer(10, seed)
        for start in range(0, 100, 20):
            buffer.add(generated(100)[start : start + 20])
        assert len(buffer) == 10 and len({text.index for text in buffer.texts}) == 10
        kept[[text.index for text in buffer.texts]] += 1
    assert kept.sum() == 4000 and ((kept - 40).abs() < 5 * 6).all()
    assert abs(kept[:50].sum() - 2000) < 5 * 32


def test_replay_goes_on_from_its_state():
    buffer, other = ReplayBuffer(8, 0), ReplayBuffer(8, 7)
    buffer.add(generated(20))
    other.load_state_dict(buffer.state_dict())
    for each in (buffer, other):
        each.add(generated(30)[20:])
    assert buffer.texts == other.texts and buffer.sample(5) == other.sample(5)
    with pytest.raises(ValueError, match="empty"):
        ReplayBuffer(8).sample(1)


def test_phases(tmp_path):
    args = AdversarialConfig(str(tmp_path), mle_warmup_steps=2, discriminator_warmup_steps=5, report_to="none")
    schedule = Schedule(args, has_discriminator=True, max_steps=12)
    assert [schedule.phase(step) for step in (0, 1)] == [Phase.LIKELIHOOD] * 2
    for step, auc in ((2, None), (3, 0.6), (4, 0.7)):
        assert schedule.phase(step) is Phase.DISCRIMINATOR
        schedule.after_warmup_step(auc)
    assert schedule.phase(5) is Phase.ADVERSARIAL and schedule.warmup_steps == 3
    assert schedule.progress(5) == 0
    schedule.after_adversarial_step(5, was_skipped=True)
    assert schedule.progress(11) == 1 and schedule.skipped_steps == 1
    assert Schedule(args, has_discriminator=False).phase(2) is Phase.ADVERSARIAL


def test_a_language_model_teaches_before_the_game(tmp_path):
    settings = {"discriminator_loss": "density", "anchor_soft_targets": 1.0, "distillation_warmup_steps": 2}
    args = AdversarialConfig(str(tmp_path), discriminator_warmup_steps=1, report_to="none", **settings)
    schedule = Schedule(args, has_discriminator=True, max_steps=9)
    assert schedule.phase(0) is Phase.DISCRIMINATOR and schedule.warmups(9) == (0, 1, 2)
    schedule.after_warmup_step(None)
    for step in (1, 2):
        assert schedule.phase(step) is Phase.DISTILLATION
        schedule.distillation_steps += 1
    assert schedule.phase(3) is Phase.ADVERSARIAL and schedule.warmups(2) == (0, 1, 1)
    with pytest.raises(ConfigError, match="nothing to distil"):
        AdversarialConfig(str(tmp_path), report_to="none", **{**settings, "anchor_soft_targets": 0.0})


@pytest.mark.parametrize(
    ("steps", "has_discriminator", "warmups"),
    [
        (2, True, "2 of maximum likelihood"),
        (7, True, "2 of maximum likelihood and 5 at most of"),
        (8, True, None),
        (3, False, None),
    ],
)
def test_a_run_that_is_all_warmup_says_so(tmp_path, steps, has_discriminator, warmups):
    args = AdversarialConfig(str(tmp_path), mle_warmup_steps=2, discriminator_warmup_steps=5, report_to="none")
    found = Schedule(args, has_discriminator, max_steps=steps).shortage()
    assert found is None if warmups is None else f"its warm-ups are {warmups}" in found and "Raise --max_steps" in found


def test_weights_that_change(tmp_path):
    args = AdversarialConfig(
        str(tmp_path), lambda_mle=0.2, lambda_mle_final=0.0, gumbel_beta_max=100.0, report_to="none"
    )
    assert [args.anchor_weight(share) for share in (0, 0.5, 1, 2)] == pytest.approx([0.2, 0.1, 0, 0])
    assert [1 / args.gumbel_temperature_at(share) for share in (0, 0.5, 1)] == pytest.approx([1, 10, 100])


def test_groups_divide_the_batch(tmp_path):
    args = AdversarialConfig(str(tmp_path), per_device_train_batch_size=16, report_to="none")
    assert args.resolve_group_size(has_prompts=True) == 8 and args.resolve_group_size(has_prompts=False) == 16
    args.group_size = 3
    with pytest.raises(ConfigError, match="does not divide"):
        args.resolve_group_size(has_prompts=True)


def test_auc_of_pairs_compares_within_a_prompt():
    """Each real text above its own generated one by little, prompts far apart: paired 1, unpaired near one half."""
    generated = torch.arange(40.0) * 10
    paired, unpaired = ScoreWindow(40, paired=True), ScoreWindow(40, paired=False)
    for window in (paired, unpaired):
        assert window.auc is None
        window.add(generated + 1, generated)
    assert paired.auc == 1 and unpaired.auc == pytest.approx((40 * 41 / 2) / 1600)


def test_the_gate_is_shut_until_the_auc_is_known_and_high_enough(tmp_path):
    trainer = make_trainer(tmp_path, gate_auc=0.6)
    trainer._begin_run()
    history = trainer.loop.history
    assert history.heldout.auc is None and not history.gate_open
    history.heldout.add(torch.zeros(64), torch.zeros(64))
    assert history.heldout.auc == 0.5 and not history.gate_open
    history.heldout.add(torch.ones(256), torch.zeros(256))
    assert history.heldout.auc > 0.6 and history.gate_open
    trainer = make_trainer(tmp_path, gate_auc=0.0)
    trainer._begin_run()
    assert trainer.loop.history.heldout.auc is None and trainer.loop.history.gate_open
