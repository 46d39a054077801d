"""A head on the generator's trunk: whose weights move, what is saved, and that a resumed game is the same."""

import shutil

import pytest
import torch

from hf_gpt.adversarial.discriminator.shared_trunk import TRUNK_KINDS, is_joint, shared_discriminator, shared_trunk
from hf_gpt.errors import ConfigError
from hf_gpt.generation.scoring.discriminator import prefix_scores, sequence_scores
from tests.adversarial.players import make_discriminator, make_generator, make_texts, make_trainer


IDS = torch.tensor([[1, 5, 9, 2, 0], [1, 12, 3, 7, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])


def state(model):
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def moved(model, before):
    return {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}


def make_pair(trunk, seed=1, **settings):
    generator = make_generator(**settings)
    torch.manual_seed(seed)
    return generator, shared_discriminator(generator, trunk)


@pytest.mark.parametrize("model_type", ["hf_gpt", "llama"])
@pytest.mark.parametrize("trunk", TRUNK_KINDS)
def test_scores_are_a_head_on_the_generators_hidden_states(trunk, model_type):
    generator, discriminator = make_pair(trunk, model_type=model_type)
    with torch.no_grad():
        hidden = generator.eval().base_model(input_ids=IDS, attention_mask=MASK)[0]
        expected = discriminator.score(hidden)[..., 0] * MASK
    found = prefix_scores(discriminator, IDS, MASK)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)
    last = MASK.sum(1) - 1
    torch.testing.assert_close(sequence_scores(discriminator, IDS, MASK), found.gather(1, last[:, None])[:, 0])


def test_which_trunks_follow_the_generator():
    for trunk, follows in (("frozen", False), ("detached", True), ("joint", True)):
        generator, discriminator = make_pair(trunk)
        before = sequence_scores(discriminator, IDS, MASK)
        with torch.no_grad():
            generator.get_input_embeddings().weight.mul_(1.5)
        assert torch.equal(sequence_scores(discriminator, IDS, MASK), before) is not follows, trunk


@pytest.mark.parametrize("trunk", TRUNK_KINDS)
def test_the_discriminators_loss_reaches_the_trunk_only_if_joint(trunk):
    generator, discriminator = make_pair(trunk, hidden_dropout=0.5)
    discriminator.train()
    generator.train()
    discriminator(input_ids=IDS, attention_mask=MASK).logits.sum().backward()
    assert any(p.grad is not None for p in discriminator.parameters())
    assert any(p.grad is not None for p in generator.parameters()) is (trunk == "joint")
    assert is_joint(generator, discriminator) is (trunk == "joint")
    assert (shared_trunk(discriminator) is generator.base_model) is (trunk == "detached")
    # Reading it leaves the trunk in the mode that it was in.
    assert all(module.training for module in generator.modules())


@pytest.mark.parametrize("level", ["sequence", "prefix"])
@pytest.mark.parametrize("trunk", TRUNK_KINDS)
def test_whom_training_moves(tmp_path, trunk, level):
    """In the discriminator's warm-up its head moves, and the trunk if it is joint; then the generator moves too."""
    settings = {"reward_level": level, "advantage_scale": "none"}
    for steps, generator_moves in ((2, trunk == "joint"), (4, True)):
        generator, discriminator = make_pair(trunk)
        sides = state(generator), state(discriminator)
        texts = {"discriminator_warmup_steps": 2, "max_steps": steps}
        trainer = make_trainer(tmp_path, generator, discriminator, **texts, **settings)
        trainer.train()
        assert bool(moved(generator, sides[0])) is generator_moves
        head = {name for name in moved(discriminator, sides[1]) if name.startswith("score")}
        assert head == {"score.weight", "score.bias"}
        trunk_moves = {name for name in moved(discriminator, sides[1]) if not name.startswith("score")}
        assert bool(trunk_moves) is (trunk == "joint")
        if trunk == "joint":
            assert discriminator.base_model is generator.base_model


def test_a_joint_trunk_learns_from_the_discriminator_as_by_hand(tmp_path, monkeypatch):
    """One update by AdamW on the same batch, on copies of the two."""
    from hf_gpt.adversarial.discriminator.losses import bce_loss
    from hf_gpt.adversarial.discriminator.update import concatenate
    from hf_gpt.adversarial.loop import AdversarialLoop

    batches, make_loss = [], AdversarialLoop._discriminator_loss

    def record(self, model, real, generated, *rest):
        batches.append((real, generated))
        return make_loss(self, model, real, generated, *rest)

    monkeypatch.setattr(AdversarialLoop, "_discriminator_loss", record)
    generator, discriminator = make_pair("joint")
    plain = {"discriminator_max_grad_norm": 0.0, "discriminator_weight_decay": 0.0}
    make_trainer(tmp_path, generator, discriminator, max_steps=1, **plain).train()

    copy, other = make_pair("joint")
    optimizer = torch.optim.AdamW(other.parameters(), lr=3e-3, betas=(0.5, 0.999), weight_decay=0.0)
    ((real, generated),) = batches
    both = concatenate([real, generated], 0)
    scores = other(input_ids=both.input_ids, attention_mask=both.attention_mask).logits[:, 0]
    bce_loss(scores[: len(real)], scores[len(real) :], 0.9).backward()
    optimizer.step()
    before = state(make_generator())
    assert moved(generator, before)
    for name, parameter in copy.named_parameters():
        torch.testing.assert_close(generator.get_parameter(name), parameter, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("trunk", TRUNK_KINDS)
def test_a_resumed_game_is_the_straight_one(tmp_path, trunk):
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9, "max_steps": 4}

    def play(folder, checkpoint=None):
        generator, discriminator = make_pair(trunk, hidden_dropout=0.1)
        trainer = make_trainer(folder, generator, discriminator, **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer

    straight = play(tmp_path / "straight")
    shutil.copytree(tmp_path / "straight" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = play(tmp_path / "resumed", str(tmp_path / "resumed" / "checkpoint-2"))
    for left, right in ((straight.model, resumed.model), (straight.discriminator, resumed.discriminator)):
        assert moved(left, state(right)) == set()
    assert straight.loop.replay.texts == resumed.loop.replay.texts


@pytest.mark.parametrize("trunk", TRUNK_KINDS)
def test_what_is_saved_opens_by_itself(tmp_path, trunk):
    from transformers import AutoModelForSequenceClassification

    generator, discriminator = make_pair(trunk)
    trainer = make_trainer(tmp_path, generator, discriminator, max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    alone = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved" / "discriminator")
    torch.testing.assert_close(sequence_scores(alone, IDS, MASK), sequence_scores(discriminator, IDS, MASK))


@pytest.mark.parametrize(
    ("trunk", "settings", "message"),
    [
        ("detached", {"r1_gamma": 1.0}, "gradient penalties"),
        ("joint", {"estimator": "gumbel"}, "Gumbel samples"),
    ],
)
def test_what_two_owners_cannot_do(tmp_path, trunk, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(tmp_path, *make_pair(trunk), **settings)


@pytest.mark.parametrize("settings", [{"r1_gamma": 1.0}, {"gradient_penalty_weight": 1.0}, {"estimator": "gumbel"}])
def test_a_frozen_trunk_does_what_the_others_cannot(tmp_path, settings):
    generator, discriminator = make_pair("frozen")
    before = state(discriminator)
    make_trainer(tmp_path, generator, discriminator, max_steps=2, **settings).train()
    assert moved(discriminator, before) == {"score.weight", "score.bias"}


def test_a_trunk_of_another_model_is_refused(tmp_path):
    _, discriminator = make_pair("detached")
    with pytest.raises(ConfigError, match="another model than the generator"):
        make_trainer(tmp_path, make_generator(), discriminator)


def test_adapters_are_refused(tmp_path):
    pytest.importorskip("peft")
    from peft import LoraConfig

    with pytest.raises(ConfigError, match="an adapter would change the detached trunk"):
        make_trainer(tmp_path, *make_pair("detached"), peft_config=LoraConfig(target_modules="all-linear"))
    generator, discriminator = make_pair("frozen")
    make_trainer(
        tmp_path, generator, discriminator, max_steps=2, peft_config=LoraConfig(target_modules="all-linear")
    ).train()


def test_bad_kinds_and_generators():
    with pytest.raises(ConfigError, match="one of frozen, detached, joint"):
        shared_discriminator(make_generator(), "shared")
    with pytest.raises(ConfigError, match="encoder-decoder"):
        shared_discriminator(_encoder_decoder(), "detached")


def _encoder_decoder():
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    sizes = {"vocab_size": 16, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes))


def test_an_ordinary_discriminator_is_not_shared(tmp_path):
    generator, discriminator = make_generator(), make_discriminator()
    assert shared_trunk(discriminator) is None and not is_joint(generator, discriminator)
    make_trainer(tmp_path, generator, discriminator, texts=make_texts())
