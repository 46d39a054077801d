"""What the players learn, which models can play, and what is refused."""

import math

import pytest
import torch

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.data.rollouts import Collector
from hf_gpt.adversarial.discriminator.model import discriminator_from_generator
from hf_gpt.adversarial.discriminator.shared_trunk import shared_discriminator
from hf_gpt.adversarial.discriminator.trainer import DiscriminatorTrainer
from hf_gpt.adversarial.generator.losses import token_divergence_rewards
from hf_gpt.adversarial.generator.rewards import future_returns
from hf_gpt.adversarial.trainer import AdversarialTrainer
from hf_gpt.adversarial.training_mode import is_alike_in_training
from hf_gpt.errors import ConfigError, UserError
from hf_gpt.generation.scoring.logprobs import completion_logits, completion_logps
from hf_gpt.training.monitoring.callbacks import describe_log
from tests.adversarial.players import (
    BOS,
    EOS,
    IDS,
    VOCAB,
    logged,
    make_discriminator,
    make_generator,
    make_pairs,
    make_texts,
    make_trainer,
)
from tests.sampling_options import rollout


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(model, before):
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_the_discriminator_learns_and_its_warmup_ends(tmp_path):
    trainer = make_trainer(
        tmp_path,
        max_steps=40,
        discriminator_warmup_steps=40,
        discriminator_warmup_auc=0.95,
        discriminator_learning_rate=2e-2,
        auc_window=64,
        per_device_train_batch_size=16,
    )
    before = parameters(trainer.model)

    class Stop(__import__("transformers").TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = trainer.schedule.warmup_done

    trainer.add_callback(Stop())
    trainer.train()
    aucs = logged(trainer, "d_auc_heldout")
    assert aucs[-1] >= 0.95 > aucs[0] and trainer.schedule.warmup_steps < 40
    assert changed(trainer.model, before) == set() and set(logged(trainer, "phase")) == {"discriminator"}


def test_likelihood_warmup_is_likelihood_training(tmp_path):
    """Against the same steps by hand: AdamW on the mean over tokens of the batches, two accumulated ones."""
    settings = {"mle_warmup_steps": 2, "max_steps": 2, "gradient_accumulation_steps": 2, "max_grad_norm": 0.0}
    trainer = make_trainer(tmp_path, adam_beta2=0.999, **settings)
    batches = [batch for _, batch in zip(range(4), trainer.get_train_dataloader(), strict=False)]
    by_hand = make_generator()
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=3e-3, betas=(0.9, 0.999), weight_decay=0.0)
    for pair in (batches[:2], batches[2:]):
        nats = [
            -(
                completion_logps(by_hand, b["input_ids"], b["attention_mask"], b["prompt_length"], b["completions"])
                * b["completion_mask"]
            ).sum()
            for b in pair
        ]
        (sum(nats) / sum(batch["completion_mask"].sum() for batch in pair)).backward()
        optimizer.step()
        optimizer.zero_grad()
    trainer = make_trainer(tmp_path, adam_beta2=0.999, **settings)
    before = parameters(trainer.discriminator)
    trainer.train()
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(trainer.model.get_parameter(name), parameter, rtol=0, atol=1e-5, msg=name)
    assert changed(trainer.discriminator, before) == set()


def share_of_token(model, token):
    samples = rollout(
        model, num_return_sequences=512, max_new_tokens=6, generator=torch.Generator().manual_seed(0), **IDS
    )
    return ((samples.completions == token) * samples.completion_mask).sum() / samples.completion_mask.sum()


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "reinforce", "advantage_scale": "std"},
        {"estimator": "grpo", "num_iterations": 2, "group_size": 8, "advantage_scale": "std"},
        {"estimator": "weighted_likelihood"},
        {"estimator": "reinforce", "dense": True, "advantage_scale": "none", "normalization": "sequence"},
        {"estimator": "reinforce", "advantage_scale": "std", "rollout_weight_dtype": "bfloat16"},
    ],
    ids=["reinforce", "grpo", "weighted", "dense", "rounded"],
)
def test_the_generator_gains_a_known_reward(tmp_path, settings):
    token, dense = 7, settings.pop("dense", False)

    def reward(samples):
        hits = (samples.completions == token) * samples.completion_mask
        return hits if dense else 4 * hits.sum(-1) / samples.completion_mask.sum(-1)

    trainer = make_trainer(
        tmp_path,
        discriminator=None,
        reward_function=reward,
        max_steps=30,
        lambda_mle=0.0,
        per_device_train_batch_size=32,
        learning_rate=1e-2,
        on_collapse="warn",
        **settings,
    )
    before = share_of_token(trainer.model, token)
    trainer.train()
    assert share_of_token(trainer.model, token) > before + 0.2
    rewards = logged(trainer, "reward_mean")
    assert sum(rewards[-3:]) > sum(rewards[:3])


def test_a_round_without_anything_to_learn_leaves_the_generator_alone(tmp_path):
    trainer = make_trainer(tmp_path, gate_auc=1.0, discriminator_learning_rate=1e-6, max_steps=5, auc_window=8)
    generator, discriminator = parameters(trainer.model), parameters(trainer.discriminator)
    trainer.train()
    assert changed(trainer.model, generator) == set() and changed(trainer.discriminator, discriminator)
    assert trainer.schedule.skipped_steps == trainer.schedule.adversarial_steps == 4
    # A step that updates nothing has no loss; that of 0 would look like a good one.
    assert logged(trainer, "loss") == [] and len(logged(trainer, "tokens_per_second")) == 5
    assert describe_log({"tokens_per_second": 30.0}, 2, 5) == "step 2/5  30 tokens/s"


def test_the_loss_is_the_mean_over_steps_that_have_one(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=4, mle_warmup_steps=1, discriminator_warmup_steps=3, logging_steps=4)
    trainer.train()
    assert logged(trainer, "loss") == pytest.approx(logged(trainer, "anchor_loss"))
    assert "has_loss" not in trainer.state.log_history[0]


def test_rounds_have_the_steps_they_are_given(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=8, mle_warmup_steps=1, discriminator_steps=3, generator_steps=2)
    trainer.train()
    # One step of likelihood, one of the discriminator alone, then six: three rounds of three updates.
    assert trainer.discriminator_trainer.updates == 1 + 3 * 3 and trainer.schedule.adversarial_steps == 6
    assert logged(trainer, "phase")[:3] == ["likelihood", "discriminator", "adversarial"]


def test_real_and_generated_texts_look_alike(tmp_path):
    """Same begin, end and padding tokens, same width, real completions cut where generated ones are."""
    texts = [{"input_ids": [BOS, *range(3, 13), EOS]}] * 40
    trainer = make_trainer(tmp_path, texts=texts, replay_fraction=0.5)
    trainer.loop.update_discriminator = lambda *args, **kwargs: None
    for _ in range(2):
        real, generated, partners, _ = next(trainer.loop._discriminator_batches(trainer.model, 1))
        assert len(real) == len(generated) == 8 and partners.tolist() == list(range(8))
        assert real.completions.shape[1] <= 6 and generated.completions.shape[1] <= 6
        assert set(real.input_ids[:, 0].tolist()) == set(generated.input_ids[:, 0].tolist()) == {BOS}
        for batch in (real, generated):
            assert (batch.attention_mask.sum(-1) == batch.prompt_length + batch.completion_mask.sum(-1)).all()
            assert batch.input_ids[batch.attention_mask == 0].eq(0).all()


def test_pairs_have_one_prompt(tmp_path):
    trainer = make_trainer(
        tmp_path, texts=make_pairs(), discriminator_loss="bradley_terry", calibration_weight=0.1, group_size=4
    )
    for _ in range(3):
        real, generated, partners, fresh = next(trainer.loop._discriminator_batches(trainer.model, 1))
        assert len(generated) == 8 and len(fresh) % 4 == 0
        for row, partner in enumerate(partners.tolist()):
            length = int(generated.prompt_length[row])
            assert length == real.prompt_length[partner]
            assert generated.input_ids[row, :length].tolist() == real.input_ids[partner, :length].tolist()


def test_a_collapse_is_noticed_and_stops(tmp_path):
    """A reward for one token alone, and no anchor: entropy falls, texts repeat, and the run ends early."""
    trainer = make_trainer(
        tmp_path,
        discriminator=None,
        reward_function=lambda samples: 8 * (samples.completions[:, 0] == EOS).float(),
        max_steps=60,
        lambda_mle=0.0,
        learning_rate=2e-2,
        per_device_train_batch_size=64,
        auc_window=128,
        monitor_steps=2,
        advantage_scale="std",
    )
    trainer.train()
    names = {warning.name for warning in trainer.loop.history.monitors.alerts}
    assert trainer.state.global_step < 60
    assert {"repeated texts", "few different n-grams"} <= names
    assert trainer.loop.history.monitors.best_step is not None


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2"])
def test_other_generators_against_a_bert(tmp_path, model_type):
    trainer = make_trainer(tmp_path, make_generator(model_type), make_discriminator("bert"), max_steps=2)
    generator, discriminator = parameters(trainer.model), parameters(trainer.discriminator)
    trainer.train()
    assert changed(trainer.model, generator) and changed(trainer.discriminator, discriminator)
    assert max(logged(trainer, "logp_mismatch"), default=0.0) < 1e-4 or model_type == "gpt2"


def test_an_encoder_decoder(tmp_path):
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    small = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    config = AutoConfig.for_model("t5", vocab_size=VOCAB, decoder_start_token_id=0, eos_token_id=EOS, **small)
    model = AutoModelForSeq2SeqLM.from_config(config)
    trainer = make_trainer(tmp_path, model, texts=make_pairs(), group_size=4, max_steps=3, mle_warmup_steps=1)
    before = parameters(model)
    trainer.train()
    assert changed(trainer.model, before) and max(logged(trainer, "logp_mismatch")) < 1e-4
    assert math.isfinite(trainer.evaluate()["eval_loss"])


def test_adapters_on_either_side(tmp_path):
    peft = pytest.importorskip("peft")
    trainer = make_trainer(
        tmp_path,
        make_generator("llama"),
        make_discriminator("llama"),
        peft_config=peft.LoraConfig(r=2, target_modules="all-linear"),
        discriminator_peft_config=peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["score"]),
        max_steps=3,
        save_strategy="steps",
        save_steps=2,
    )
    generator, discriminator = parameters(trainer.model), parameters(trainer.discriminator)
    trainer.train()
    for model, before in ((trainer.model, generator), (trainer.discriminator, discriminator)):
        moved = changed(model, before)
        assert moved and all("lora" in name or "modules_to_save" in name for name in moved)
    assert (tmp_path / "checkpoint-2" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "checkpoint-2" / "discriminator" / "adapter_model.safetensors").is_file()
    resumed = make_trainer(
        tmp_path,
        make_generator("llama"),
        make_discriminator("llama"),
        peft_config=peft.LoraConfig(r=2, target_modules="all-linear"),
        discriminator_peft_config=peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["score"]),
        max_steps=3,
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for old, new in ((trainer.model, resumed.model), (trainer.discriminator, resumed.discriminator)):
        assert changed(new, parameters(old)) == set()


@pytest.mark.parametrize("kind", ["forward_kl", "jsd"])
def test_a_density_is_followed_by_other_divergences(tmp_path, kind):
    """The generator comes nearer to the texts, and what it is given for later tokens is the same divergence."""
    trainer = make_trainer(
        tmp_path,
        discriminator=make_generator(seed=1),
        discriminator_loss="density",
        discriminator_warmup_steps=30,
        discriminator_warmup_auc=1.0,
        replay_fraction=0.0,
        estimator="exact_token",
        token_divergence=kind,
        lambda_mle=0.0,
        normalization="token",
        learning_rate=1e-2,
        max_steps=45,
    )
    before = trainer.loop.held_out_nll(trainer.model)
    trainer.train()
    assert trainer.loop.held_out_nll(trainer.model) < before - 0.3
    found = trainer.generator_step.experience(trainer.model, next(iter(trainer.get_train_dataloader())))
    mask = found.rollout.completion_mask.bool()
    # The longest text ends there, with no state after it.
    assert found.advantages[:, -1].abs().max() == 0
    texts = found.rollout
    with torch.no_grad():
        width = texts.completions.shape[1]
        logits = completion_logits(trainer.model, texts.sequences, texts.attention_mask, texts.prompt_length, width)
    rewards = token_divergence_rewards(logits, found.mediator_logits, mask, kind, 0.5)
    # Less the average, or ending at once would be best: nothing that follows costs less than nothing.
    returns = future_returns(rewards - mask * rewards.sum() / mask.sum(), mask)
    expected = torch.where(mask, returns - returns.sum(0) / mask.sum(0).clamp(min=1), 0.0)
    torch.testing.assert_close(found.advantages, expected, atol=1e-5, rtol=1e-4)


def test_the_language_model_teaches_the_anchor(tmp_path):
    """With soft targets alone the anchor is the cross-entropy to what the language model says at real texts."""
    settings = {"discriminator_loss": "density", "estimator": "exact_token", "normalization": "token"}
    discriminator = make_generator(seed=1)
    trainer = make_trainer(
        tmp_path,
        discriminator=discriminator,
        max_steps=4,
        discriminator_warmup_steps=1,
        distillation_warmup_steps=1,
        anchor_soft_targets=1.0,
        **settings,
    )
    seen, inner = [], trainer._anchor

    def anchor(model, inputs, *given):
        with torch.no_grad():
            told, own = (
                one(input_ids=inputs["input_ids"]).logits.log_softmax(-1) for one in (discriminator, trainer.model)
            )
        # Texts without prompts: each completion begins after the first token.
        cross_entropy = -(told.exp() * own).sum(-1)[:, :-1][inputs["attention_mask"][:, 1:].bool()].mean()
        seen.append(cross_entropy.item())
        return inner(model, inputs, *given)

    trainer._anchor = anchor
    trainer.train()
    assert len(seen) == 3 and logged(trainer, "anchor_loss") == pytest.approx(seen, rel=1e-4)
    assert logged(trainer, "phase") == ["discriminator", "distillation", "adversarial", "adversarial"]
    assert logged(trainer, "loss")[0] == pytest.approx(seen[0], rel=1e-4)


def test_a_trunk_from_the_generator():
    generator = make_generator("llama")
    discriminator = discriminator_from_generator(generator)
    ids = torch.tensor([[BOS, 4, 5, EOS]])
    assert discriminator.config.num_labels == 1
    torch.testing.assert_close(discriminator.base_model(ids)[0], generator.base_model(ids)[0])
    discriminator(ids).logits.sum().backward()
    assert all(parameter.grad is None for parameter in generator.parameters())


@pytest.mark.parametrize(
    ("discriminator", "settings", "message"),
    [
        ({"num_labels": 2}, {}, "has 2 labels"),
        ({"vocab_size": 9}, {}, "another tokenizer"),
        ({"vocab_size": 15}, {"texts": make_texts(low=3)}, "one tokenizer|another tokenizer"),
        ({"model_type": "bert"}, {"reward_level": "prefix"}, "prefix"),
        ({"model_type": "bert", "max_position_embeddings": 4}, {}, "reads 4"),
        ({}, {"discriminator_loss": "mediator", "estimator": "exact_token"}, "causal language model"),
        ({}, {"estimator": "spin"}, "self-play"),
        ({}, {"texts": []}, "empty"),
        ({}, {"texts": [{"words": "x"}] * 30}, "columns words"),
        ({}, {"texts": [{"text": "x"}] * 30}, "processing_class"),
        ({}, {"texts": make_texts(8)}, "fewer than"),
        ({}, {"group_size": 1}, "--group_size 2"),
        (None, {}, "reward_funcs or a reward_function"),
        ({}, {"metric_for_best_model": "fresh_auc"}, "needs 40"),
        ({}, {"max_new_tokens": 40}, "more than the 32 positions of HfGptForCausalLM. .* Lower --max_new_tokens"),
        (
            None,
            {"estimator": "spin", "texts": [{"input_ids": [BOS, VOCAB, EOS]}] * 30},
            "the generator has 16 embeddings",
        ),
        ({}, {"calibration_weight": 0.1, "reward_level": "prefix"}, "--calibration_weight works with"),
        ({}, {"calibration_weight": 0.1, "group_size": 1, "baseline": "none"}, "--group_size 2"),
        ({}, {"calibration_weight": 0.1, "discriminator_loss": "density"}, "--calibration_weight is for classifiers"),
        ({}, {"anchor_soft_targets": 0.5}, "needs next-token distributions, which a classifier does not have"),
        ({}, {"r1_gamma": 0.1, "discriminator_loss": "mediator"}, "--r1_gamma is for classifiers"),
        ({}, {"gradient_penalty_weight": 1.0, "discriminator_loss": "density"}, "is for classifiers"),
        ({}, {"advantage_power": 1.5, "baseline": "moving_average"}, "--baseline group"),
        ({}, {"estimator": "gumbel", "beta": 0.1}, "--beta has no effect with --estimator gumbel"),
        (None, {"estimator": "spin", "beta": 0.1}, "--beta has no effect with --estimator spin"),
        ({}, {"group_size": 0}, "--group_size must be at least 1"),
        ({}, {"max_prompt_length": 0}, "--max_prompt_length must be at least 1"),
        ({}, {"rollout_batch_size": -1}, "--rollout_batch_size must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, discriminator, settings, message):
    built = None if discriminator is None else make_discriminator(**discriminator)
    with pytest.raises(UserError, match=message):
        make_trainer(tmp_path, discriminator=built, **settings)


def test_a_generator_that_cannot_end_a_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="end-of-text"):
        make_trainer(tmp_path, make_generator(eos_token_id=None))


def test_other_arguments_are_refused(tmp_path):
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    with pytest.raises(TypeError, match="AdversarialConfig"):
        AdversarialTrainer(make_generator(), make_discriminator(), HfGptTrainingArguments(str(tmp_path)), make_texts())
    with pytest.raises(ConfigError, match="train_dataset"):
        AdversarialTrainer(make_generator(), make_discriminator(), AdversarialConfig(str(tmp_path)))


@pytest.mark.parametrize("every, looks", [(1, 4), (3, 2)])
def test_held_out_texts_are_looked_at_every_so_many_updates(tmp_path, monkeypatch, every, looks):
    trainer = make_trainer(tmp_path, max_steps=4, discriminator_warmup_steps=0, gate_auc=0.0, heldout_steps=every)
    asked, scored = [], []
    observe, scores = trainer.loop.observe_texts, trainer.discriminator_trainer.scores
    monkeypatch.setattr(trainer.loop, "observe_texts", lambda *args: asked.append(1) or observe(*args))
    monkeypatch.setattr(trainer.discriminator_trainer, "scores", lambda *args: scored.append(1) or scores(*args))
    # `train` begins anew with rounds and player of its own.
    monkeypatch.setattr(trainer, "_begin_run", lambda: None)
    trainer.train()
    assert len(asked) == looks
    # Held-out and drawn texts at a look, which judges the drawn ones already; drawn ones alone else.
    assert len(scored) == 2 * looks + (4 - looks)


def test_shared_texts_are_drawn_once_and_leave_the_generator_s_gradient_alone(tmp_path, monkeypatch):
    """Against a discriminator that stays as it is: one that does not learn, and one whose rate is too small to."""
    settings = {"max_steps": 3, "discriminator_warmup_steps": 0, "gradient_accumulation_steps": 2}
    settings |= {"texts": make_pairs(), "group_size": 4, "heldout_steps": 100, "advantage_scale": "std"}
    alone = make_trainer(tmp_path, discriminator_steps=0, **settings)
    alone.train()
    # Below the last digit of any weight.
    rate = {"discriminator_learning_rate": 1e-30, "discriminator_weight_decay": 0.0}
    shared = make_trainer(tmp_path, discriminator_texts="shared", **rate, **settings)
    samples = []
    sample_all = Collector.sample_all
    monkeypatch.setattr(
        Collector, "sample_all", lambda *args, **kwargs: samples.append(1) or sample_all(*args, **kwargs)
    )
    shared.train()
    for ours, theirs in zip(shared.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert len(samples) == 3 * 2 and shared.discriminator_trainer.updates == 3


def test_shared_texts_teach_the_discriminator(tmp_path):
    settings = {"max_steps": 30, "discriminator_warmup_steps": 0, "discriminator_learning_rate": 2e-2, "gate_auc": 0.0}
    trainer = make_trainer(tmp_path, discriminator_texts="shared", learning_rate=1e-6, auc_window=32, **settings)
    trainer.train()
    assert logged(trainer, "d_auc_heldout")[-1] > 0.9 and trainer.discriminator_trainer.updates == 30


@pytest.mark.parametrize("texts", [None, make_pairs()])
@pytest.mark.parametrize("settings", [{}, {"discriminator_loss": "hinge", "gradient_penalty_weight": 0.5}])
def test_one_pass_judges_and_teaches_where_it_can(tmp_path, monkeypatch, settings, texts):
    """The weights are those of two passes; half of the discriminator's texts are replayed ones."""

    def run(folder):
        shared = {"discriminator_texts": "shared", "discriminator_warmup_steps": 0, "replay_fraction": 0.5}
        trainer = make_trainer(folder, None, make_discriminator("hf_gpt"), texts, **shared, **settings)
        read, forward = [], trainer.discriminator_trainer.scorer.forward

        def count(*args, **kwargs):
            read.append(len(args[0]) if args else 0)
            return forward(*args, **kwargs)

        trainer.discriminator_trainer.scorer.forward = count
        trainer.train()
        return trainer, sum(read)

    once, few = run(tmp_path / "once")
    monkeypatch.setattr(DiscriminatorTrainer, "judgement", lambda self, batch: None)
    twice, many = run(tmp_path / "twice")
    for model in ("model", "discriminator"):
        for ours, theirs in zip(getattr(once, model).parameters(), getattr(twice, model).parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)
    assert logged(once, "d_loss") == pytest.approx(logged(twice, "d_loss"), rel=1e-4)
    # Each of the eight texts of six steps.
    assert many - few == 6 * 8


@pytest.mark.parametrize(
    "discriminator",
    [make_discriminator(), make_discriminator("hf_gpt", classifier_spectral_norm=True)],
    ids=["dropout", "spectral_norm"],
)
def test_a_discriminator_that_differs_in_training_judges_in_evaluation(tmp_path, discriminator):
    trainer = make_trainer(tmp_path, None, discriminator, discriminator_texts="shared")
    assert not is_alike_in_training(discriminator) and trainer.discriminator_trainer.judgement(None) is None


@pytest.mark.parametrize("settings", [{"discriminator_steps": 2}, {"estimator": "gumbel"}, {"generator_steps": 2}])
def test_shared_texts_need_one_update_of_each_side(tmp_path, settings):
    with pytest.raises(ConfigError, match="discriminator_texts shared"):
        make_trainer(tmp_path, discriminator_texts="shared", **settings)


def test_shared_texts_are_refused_with_a_joint_trunk(tmp_path):
    generator = make_generator()
    joint = shared_discriminator(generator, "joint")
    with pytest.raises(ConfigError, match="joint"):
        make_trainer(tmp_path, generator, joint, discriminator_texts="shared")


def test_texts_of_a_short_accumulation_are_followed_by_a_long_one(tmp_path):
    """Three batches an epoch, of which the second update has one and the third, by the same texts, two."""
    trainer = make_trainer(
        tmp_path,
        texts=make_texts(24),
        eval_dataset=make_texts(16, seed=1),
        estimator="grpo",
        num_iterations=2,
        gradient_accumulation_steps=2,
    )
    sizes, inner = [], trainer._after_step
    trainer._after_step = lambda *given: (sizes.append(len(trainer.experiences)), inner(*given))
    trainer.train()
    assert trainer.state.global_step == 6 and sizes == [0, 1, 2, 1, 2, 1]


def test_the_exact_gradient_is_held_near_the_reference_too(tmp_path):
    settings = {"discriminator_loss": "density", "estimator": "exact_token", "lambda_mle": 0.0, "learning_rate": 1e-2}
    kept = {}
    for beta in (1e-6, 10.0):
        discriminator = make_generator(seed=1)
        trainer = make_trainer(tmp_path, discriminator=discriminator, beta=beta, max_steps=20, **settings)
        trainer.train()
        kept[beta] = logged(trainer, "kl")[-1]
    assert 0 < kept[10.0] < 0.3 * kept[1e-6]


@pytest.mark.parametrize(
    ("loss", "weight", "is_known"), [("mediator", 0.3, 0), ("density", 0.0, 0), ("density", 0.3, 1)]
)
def test_scores_of_training_texts_are_ratios_or_unknown(tmp_path, loss, weight, is_known):
    """Likelihoods under the language model alone are no scores to compare with those of held-out texts."""
    settings = {"discriminator_loss": loss, "density_ratio_weight": weight, "estimator": "exact_token"}
    trainer = make_trainer(tmp_path, discriminator=make_generator(seed=1), **settings)
    trainer.train()
    assert bool(logged(trainer, "d_auc_train")) == is_known and logged(trainer, "d_auc_heldout")
