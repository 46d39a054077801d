"""The generator learns as the distribution that its texts are sampled from: all texts of a small world are added up."""

import pytest
import torch

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.generator.update import Experience, generator_loss, logps_of
from hf_gpt.errors import ConfigError
from hf_gpt.generation.sampling.distribution import SamplingConfig, pack
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.training.settings import ADVERSARIAL_RECIPES
from tests.adversarial.players import make_generator, make_trainer
from tests.generation.enumerated import BEGIN, EOS, all_texts, make_lm
from tests.generation.test_sampling import texts_of_the_world
from tests.sampling_options import rollout


SETTINGS = [
    {},
    {"temperature": 0.8},
    {"temperature": 0.5},
    {"top_p": 0.8},
    {"top_k": 2},
    {"min_p": 0.5},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 3},
]


def config(folder, **settings):
    return AdversarialConfig(output_dir=str(folder), report_to="none", normalization="sequence", **settings)


def policy_of(model, **settings):
    """Every text that can be sampled, as a rollout with its log-probabilities, and their sums with gradient."""
    sequences, attention_mask, prompt_length, completions, mask = texts_of_the_world()
    logits = torch.stack([torch.zeros(completions.shape[1], model.config.vocab_size).double()] * len(sequences))
    for row, text in enumerate(all_texts()):
        logits[row, : len(text)] = model(torch.tensor([[BEGIN, *text[:-1]]])).logits[0]
    sampling = SamplingConfig(**settings)
    logits = logits / sampling.temperature
    kept = SamplingConfig(1.0, sampling.top_p, sampling.top_k, sampling.min_p).support(logits)
    logps = logits.masked_fill(~kept, -torch.inf).log_softmax(-1)
    logps = logps.gather(-1, completions[..., None])[..., 0].masked_fill(~mask.bool(), 0.0)
    possible = logps.detach().sum(-1) > -torch.inf
    texts = Rollout(sequences, attention_mask, completions, mask, logps.detach(), prompt_length, None, pack(kept))
    return texts.rows(possible), logps[possible].sum(-1)


def gradient(loss, model):
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


def make_model():
    return make_lm(0, pad_token_id=EOS).double()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("estimator", ["reinforce", "grpo", "weighted_likelihood"])
def test_the_expected_score_is_zero_and_the_expected_gradient_that_of_the_reward(tmp_path, estimator, settings):
    model, args = make_model(), None
    args = config(tmp_path, estimator=estimator, weight_clip=100.0, select_best=0, **settings)
    texts, logps = policy_of(model, **settings)
    share, count = logps.detach().exp(), len(texts)
    assert share.sum().item() == pytest.approx(1, abs=1e-9)
    rewards = torch.linspace(-1, 2, count).double()[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    # The mean over these rows is then the expectation. Weights of a likelihood make a softmax of scores.
    score = Experience(texts, count, scores=share.log(), advantages=share * count)
    loss, metrics = generator_loss(args, model, score)
    assert gradient(loss, model).norm() < 1e-6
    assert metrics["logp_mismatch"] < 1e-6
    if estimator == "weighted_likelihood":
        return
    exact = gradient(-(logps.exp() * rewards).sum(), model)
    for baseline in (0.0, 0.7):
        learned = Experience(texts, count, advantages=share * count * (rewards - baseline))
        found = gradient(generator_loss(args, model, learned)[0], model)
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_the_penalty_is_the_kl_of_the_sampled_distribution(tmp_path, settings):
    model, reference = make_model(), make_lm(1, pad_token_id=EOS).double()
    args = config(tmp_path, estimator="reinforce", beta=1.0, **settings)
    texts, _ = policy_of(model, **settings)
    found = logps_of(reference, texts, args.sampling)
    assert found[texts.completion_mask.bool()].isfinite().all()
    # Of itself it is nothing, whatever the temperature.
    own = logps_of(model, texts, args.sampling) * texts.completion_mask
    torch.testing.assert_close(own, texts.logps, rtol=0, atol=1e-6)
    experience = Experience(texts, 1, advantages=torch.zeros(len(texts)), reference_logps=found)
    difference = (found - texts.logps) * texts.completion_mask
    expected = (difference.exp() - difference - 1).sum(-1).mean().item()
    assert generator_loss(args, model, experience)[1]["kl"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.8, 0.5])
def test_exact_tokens_and_self_play_are_of_the_tempered_model(tmp_path, temperature):
    model, other = make_model(), make_lm(1, pad_token_id=EOS).double()
    texts, _ = policy_of(model, temperature=temperature)
    args = config(tmp_path, estimator="exact_token", discriminator_loss="density", temperature=temperature)
    width = texts.completions.shape[1]
    with torch.no_grad():
        mine, theirs = (one(texts.sequences).logits[:, :width] for one in (model, other))
    log_g, log_m = (mine / temperature).log_softmax(-1), theirs.log_softmax(-1)
    divergence = ((log_g.exp() * (log_g - log_m)).sum(-1) * texts.completion_mask).sum(-1).mean().item()
    found = generator_loss(args, model, Experience(texts, 1, mediator_logits=theirs))[0].item()
    assert found == pytest.approx(divergence, rel=1e-4)
    # The log-ratio of self-play is that of two tempered models: nothing between a model and itself.
    args = config(tmp_path, estimator="spin", temperature=temperature, spin_loss="chi2")
    real = {
        "input_ids": texts.sequences,
        "attention_mask": texts.attention_mask,
        "prompt_length": texts.prompt_length,
        "completions": texts.completions,
        "completion_mask": texts.completion_mask,
    }
    logps = logps_of(model, texts, args.sampling)
    own = Experience(texts, 1, reference_logps=logps, real=real, real_reference_logps=logps)
    assert generator_loss(args, model, own)[0].item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("settings", [{"temperature": 0.8}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}])
def test_a_mismatch_is_seen_and_nothing_else(tmp_path, settings):
    model = make_generator(initializer_range=0.4)
    samples = {"num_return_sequences": 16, "max_new_tokens": 6, "bos_token_id": 1, "eos_token_id": 2}
    samples = rollout(model, generator=torch.Generator().manual_seed(0), **samples, **settings)
    args = config(tmp_path, estimator="reinforce", **settings)
    experience = Experience(samples, 16, advantages=torch.ones(16))
    assert generator_loss(args, model, experience)[1]["logp_mismatch"] < 1e-5
    wrong = config(tmp_path, estimator="reinforce", **{**settings, "temperature": 0.6})
    assert generator_loss(wrong, model, experience)[1]["logp_mismatch"] > 1e-2


def test_a_rollout_at_another_temperature_raises_a_warning(tmp_path):
    def at_one(model, *args, sampling, **kwargs):
        return rollout(model, *args, **{**vars(sampling), "temperature": 1.0}, **kwargs)

    settings = {"temperature": 0.5, "max_steps": 4, "monitor_steps": 1, "logging_steps": 1}
    for function, is_wrong in ((None, False), (at_one, True)):
        generator = make_generator(initializer_range=0.4)
        trainer = make_trainer(tmp_path / str(is_wrong), generator, rollout_function=function, **settings)
        trainer.train()
        named = {warning.name for warning in trainer.loop.history.monitors.alerts}
        assert ("sampler and trainer disagree" in named) == is_wrong


@pytest.mark.parametrize("name", ["gad", "grgc"])
def test_recipes_at_a_temperature_start_at_a_ratio_of_one(tmp_path, name):
    import yaml

    recipe = yaml.safe_load((ADVERSARIAL_RECIPES / f"{name}.yaml").read_text())
    assert recipe["temperature"] == 0.8 and recipe["estimator"] == "grpo"
    kept = ("estimator", "reward", "temperature", "baseline", "advantage_scale", "advantage_min_std", "normalization")
    settings = {one: recipe[one] for one in kept if one in recipe} | {"discriminator_loss": "bradley_terry"}
    trainer = make_trainer(tmp_path, make_generator(initializer_range=0.4), group_size=4, monitor_steps=1, **settings)
    trainer.train()
    found = [entry["logp_mismatch"] for entry in trainer.state.log_history if "logp_mismatch" in entry]
    assert found and max(found) < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "spin"},
        {"discriminator_loss": "density"},
        {"discriminator_loss": "mediator", "estimator": "exact_token"},
    ],
)
@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}])
def test_what_asks_for_the_likelihood_of_real_texts_refuses_truncation(tmp_path, settings, cut):
    with pytest.raises(ConfigError, match="needs the probability of real texts"):
        config(tmp_path, **settings, **cut)


@pytest.mark.parametrize("settings", [{"temperature": 0.5}, {"top_k": 1}])
def test_gumbel_texts_are_sampled_as_rollouts_are(settings):
    from hf_gpt.adversarial.generator.gumbel import gumbel_rollout

    model = make_lm(0, spread=1.0, pad_token_id=EOS)
    prompts = torch.full((4000, 1), BEGIN)
    soft = gumbel_rollout(
        model,
        prompts,
        torch.ones_like(prompts),
        max_new_tokens=1,
        temperature=2.0,
        sampling=SamplingConfig(**settings),
        eos_token_id=EOS,
        generator=torch.Generator().manual_seed(0),
    )
    found = soft.samples[:, 0].detach().mean(0)
    with torch.no_grad():
        logits = model(prompts[:1]).logits[0, -1]
    expected = SamplingConfig(**settings).policy_logits(logits).softmax(-1)
    assert (found - expected).abs().max() < 0.03


def test_evaluation_is_of_the_model_at_temperature_one(tmp_path):
    losses = []
    for temperature in (1.0, 0.5):
        trainer = make_trainer(tmp_path / str(temperature), temperature=temperature, num_eval_samples=16)
        losses.append(trainer.evaluate())
    for name in ("eval_loss", "eval_entropy", "eval_completion_length"):
        assert losses[0][name] == losses[1][name]


def test_saved_models_and_reports_sample_as_was_asked_and_no_more():
    """`generate` keeps the 50 likeliest tokens where it is told nothing else."""
    from hf_gpt.cli.training_parts import sampling_options
    from hf_gpt.training.arguments.sampling import SamplingArguments

    asked = SamplingArguments(sample_temperature=0.7, sample_top_p=0.9)
    options = sampling_options(asked, 20)
    assert (options["temperature"], options["top_p"], options["top_k"]) == (0.7, 0.9, 0)
