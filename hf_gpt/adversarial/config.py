"""`AdversarialConfig`: the arguments of `AdversarialTrainer`, checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hf_gpt.adversarial.arguments import AdversarialArguments
from hf_gpt.errors import ConfigError
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.option_values import check_at_least
from hf_gpt.training.training_arguments import HfGptTrainingArguments


# Completions of a prompt when `group_size` is left out.
DEFAULT_GROUP_SIZE = 8

# Estimators whose gradient goes through sampled texts and their rewards.
REWARDED = ("reinforce", "grpo")
DIFFERENTIABLE = ("gumbel", "relativistic_gumbel")

# Losses that compare a generated text with the real one of the same prompt.
PAIRED_LOSSES = ("bradley_terry", "relativistic")

# Losses of a language model in the place of a classifier.
LANGUAGE_MODEL_LOSSES = ("mediator", "density")

# Losses whose scores are margins and not logarithms of a density ratio.
_MARGIN_LOSSES = ("hinge", "least_squares", "wasserstein")

_AT_LEAST = {
    "mle_warmup_steps": 0,
    "discriminator_warmup_steps": 0,
    "distillation_warmup_steps": 0,
    "discriminator_steps": 0,
    "generator_steps": 1,
    "max_new_tokens": 1,
    "top_k": 0,
    "num_iterations": 1,
    "replay_size": 0,
    "calibration_weight": 0,
    "density_ratio_weight": 0,
    "r1_gamma": 0,
    "gradient_penalty_weight": 0,
    "advantage_clip": 0,
    "advantage_min_std": 0,
    "epsilon": 0,
    "beta": 0,
    "lambda_mle": 0,
    "select_best": 0,
    "reference_steps": 0,
    "auc_window": 2,
    "monitor_steps": 1,
    "heldout_steps": 1,
    "num_eval_samples": 0,
    "discriminator_learning_rate": 0,
    "group_size": 1,
    "max_prompt_length": 1,
    "rollout_batch_size": 1,
}

# Options that are shares or probabilities.
_SHARES = (
    "discriminator_warmup_auc",
    "gate_auc",
    "gamma",
    "replay_fraction",
    "real_label",
    "top_p",
    "min_p",
    "anchor_soft_targets",
)


@dataclass
class AdversarialConfig(AdversarialArguments, HfGptTrainingArguments):
    """All arguments of `AdversarialTrainer`: those of `AdversarialArguments` and `HfGptTrainingArguments`.

    Raises:
        ConfigError: options are out of range or contradict each other.
    """

    _argument_group_name = "adversarial"

    def __post_init__(self):
        super().__post_init__()
        # Batches are read column by column, and pairs of rows belong together.
        self.remove_unused_columns = False
        self.dataloader_drop_last = True
        self._check_ranges()
        self._check_combinations()

    @property
    def sampling(self) -> SamplingConfig:
        """The distribution that texts are sampled from, which is the policy that learns from them."""
        return SamplingConfig(self.temperature, self.top_p, self.top_k, self.min_p, self.max_new_tokens)

    @property
    def needs_reference(self) -> bool:
        """Whether a copy of the generator as it was is kept."""
        return self.estimator == "spin" or self.beta > 0

    @property
    def needs_discriminator(self) -> bool:
        """Whether the estimator asks for a discriminator or a reward; self-play does not.

        Maximum likelihood asks for a language model where its soft targets come from one.
        """
        if self.estimator == "likelihood":
            return self.anchor_soft_targets > 0
        return self.estimator != "spin"

    @property
    def has_language_model(self) -> bool:
        """Whether a language model stands in the place of a classifier."""
        return self.discriminator_loss in LANGUAGE_MODEL_LOSSES

    @property
    def needs_embeddings(self) -> bool:
        """Whether gradients flow through the discriminator into its inputs."""
        return self.estimator in DIFFERENTIABLE or self.r1_gamma > 0 or self.gradient_penalty_weight > 0

    def resolve_group_size(self, has_prompts: bool) -> int:
        """Completions compared with each other.

        Raises:
            ConfigError: it does not divide the batch.
        """
        batch = self.per_device_train_batch_size
        default = min(DEFAULT_GROUP_SIZE, batch) if has_prompts else batch
        size = default if self.group_size is None else self.group_size
        if batch % size:
            raise ConfigError(
                f"--group_size {size} does not divide --per_device_train_batch_size {batch}, the number of completions "
                "in a batch. Change one of them."
            )
        if size < 2 and self.estimator in REWARDED and self.baseline == "group":
            raise ConfigError(
                "--baseline group compares the completions of a group: it needs --group_size 2 or more, or use "
                "--baseline moving_average."
            )
        fresh = batch - int(batch * self.replay_fraction)
        if min(size, fresh) < 2 and self.calibration_weight:
            raise ConfigError(
                "--calibration_weight spreads the scores of a group: it needs --group_size 2 or more, and 2 or more "
                "new texts in a batch."
            )
        return size

    def anchor_weight(self, progress: float) -> float:
        """The anchor's weight at a share `progress` of the steps against the discriminator."""
        final = self.lambda_mle if self.lambda_mle_final is None else self.lambda_mle_final
        return self.lambda_mle + (final - self.lambda_mle) * min(max(progress, 0.0), 1.0)

    def gumbel_temperature_at(self, progress: float) -> float:
        """Temperature of the straight-through samples: its inverse grows exponentially to `gumbel_beta_max`."""
        return self.gumbel_temperature / self.gumbel_beta_max ** min(max(progress, 0.0), 1.0)

    def _check_ranges(self) -> None:
        check_at_least(self, **_AT_LEAST)
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name} must be between 0 and 1, got {getattr(self, name)}.")
        for name in ("temperature", "real_label", "top_p", "gumbel_temperature", "gumbel_beta_max"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"--{name} must be above 0, got {getattr(self, name)}.")
        if not 0 < self.token_divergence_beta < 1:
            raise ConfigError(
                f"--token_divergence_beta must be between 0 and 1, both excluded, got {self.token_divergence_beta}. "
                "The limits of jsd are --token_divergence forward_kl and reverse_kl."
            )
        if self.replay_fraction == 1:
            raise ConfigError("--replay_fraction 1 would never show the discriminator new texts of the generator.")

    def _check_combinations(self) -> None:
        for is_at_odds, message in _CONFLICTS:
            if is_at_odds(self):
                raise ConfigError(message.format_map(vars(self)))


# What cannot be combined, in the order in which it is looked for, and what is said of it.
_CONFLICTS: tuple[tuple[Callable[[AdversarialConfig], Any], str], ...] = (
    (
        lambda args: args.fp16,
        "--fp16 is not for adversarial training: its loss scale covers one model. Use --bf16.",
    ),
    (
        lambda args: args.estimator == "exact_token" and not args.has_language_model,
        "--estimator exact_token compares next-token distributions: set --discriminator_loss mediator or density, with "
        "a language model as the discriminator.",
    ),
    (
        lambda args: args.token_divergence != "reverse_kl" and args.estimator != "exact_token",
        "--token_divergence {token_divergence} compares whole next-token distributions: use --estimator exact_token. "
        "With sampled texts --reward chooses the divergence.",
    ),
    (
        lambda args: args.anchor_soft_targets and not args.has_language_model,
        "--anchor_soft_targets needs next-token distributions, which a classifier does not have: set "
        "--discriminator_loss density or mediator, with a language model as the discriminator.",
    ),
    (
        lambda args: args.distillation_warmup_steps and not args.anchor_soft_targets,
        "--distillation_warmup_steps has nothing to distil: set --anchor_soft_targets above 0 (at most 1), or it to 0.",
    ),
    (
        lambda args: args.has_language_model and args.estimator in DIFFERENTIABLE,
        "--estimator {estimator} needs a classifier, not a language model.",
    ),
    (
        lambda args: args.has_language_model and args.reward_level == "prefix",
        "--reward_level prefix is for classifiers: a language model scores each token by itself.",
    ),
    (
        lambda args: args.estimator == "weighted_likelihood" and args.discriminator_loss in _MARGIN_LOSSES,
        "--estimator weighted_likelihood weighs by density ratios, which the scores of --discriminator_loss "
        "{discriminator_loss} are not. Use bce or bradley_terry.",
    ),
    (
        lambda args: (
            args.estimator in REWARDED
            and args.discriminator_loss in _MARGIN_LOSSES
            and args.reward not in ("logit", "logit_difference")
        ),
        "--reward {reward} reads the score as log p/q, which those of --discriminator_loss {discriminator_loss} are "
        "not. Use --reward logit or logit_difference, or bce.",
    ),
    (
        lambda args: (
            args.reward_level == "prefix" and args.discriminator_loss in (*PAIRED_LOSSES, "relativistic_average")
        ),
        "--discriminator_loss {discriminator_loss} compares whole texts: use --reward_level sequence, or bce, hinge or "
        "least_squares.",
    ),
    (
        lambda args: args.reward == "logit_difference" and args.reward_level != "prefix",
        "--reward logit_difference needs the score of every prefix: add --reward_level prefix.",
    ),
    (
        lambda args: args.reward == "pairwise" and args.reward_level == "prefix",
        "--reward pairwise compares whole texts: use --reward_level sequence.",
    ),
    (
        lambda args: (
            args.discriminator_texts == "shared"
            and (
                args.estimator in (*DIFFERENTIABLE, "spin")
                or max(args.discriminator_steps, args.generator_steps, args.num_iterations) > 1
            )
        ),
        "--discriminator_texts shared needs new texts and one update of each side in every step: set "
        "--discriminator_steps, --generator_steps and --num_iterations to 1, and an estimator that samples texts.",
    ),
    (
        lambda args: args.num_iterations > 1 and args.estimator != "grpo",
        "--num_iterations above 1 needs --estimator grpo, whose clip keeps old rollouts safe.",
    ),
    (
        lambda args: args.replay_fraction > 0 and args.replay_size == 0,
        "--replay_fraction needs --replay_size above 0; set it to 0 for no replay.",
    ),
    (
        lambda args: (args.r1_gamma or args.gradient_penalty_weight) and args.reward_level == "prefix",
        "--r1_gamma and --gradient_penalty_weight work with --reward_level sequence.",
    ),
    *(
        (
            lambda args, name=name: getattr(args, name) and args.has_language_model,
            f"--{name} is for classifiers: --discriminator_loss {{discriminator_loss}} would not use it. Set it to 0.",
        )
        for name in ("calibration_weight", "r1_gamma", "gradient_penalty_weight")
    ),
    (
        lambda args: args.calibration_weight and args.reward_level == "prefix",
        "--calibration_weight works with --reward_level sequence.",
    ),
    (
        lambda args: args.advantage_power != 1 and args.reward_level == "prefix",
        "--advantage_power works with --reward_level sequence.",
    ),
    (
        lambda args: args.advantage_power != 1 and args.baseline != "group",
        "--advantage_power raises differences within a group: use --baseline group.",
    ),
    (
        lambda args: args.beta and args.estimator in DIFFERENTIABLE,
        "--beta has no effect with --estimator {estimator}, which has no log-probabilities of texts to hold near the "
        "reference: use --lambda_mle, or another estimator.",
    ),
    (
        lambda args: args.beta and args.estimator == "spin",
        "--beta has no effect with --estimator spin, whose loss holds the reference: see --spin_beta.",
    ),
    *(
        (
            lambda args, is_meant=is_meant: args.sampling.is_truncated and is_meant(args),
            what + " needs the probability of real texts under the sampling distribution. --top_p, --top_k and --min_p "
            "give some of their tokens a probability of 0. Use --temperature, or set --top_p 1, --top_k 0 and "
            "--min_p 0.",
        )
        for what, is_meant in (
            ("--discriminator_loss {discriminator_loss}", lambda args: args.has_language_model),
            ("--estimator {estimator}", lambda args: args.estimator == "spin"),
        )
    ),
    (
        lambda args: args.reference_steps and not args.needs_reference,
        "--reference_steps needs a reference: --beta above 0 or --estimator spin.",
    ),
)


def check_processes(args: AdversarialConfig) -> None:
    """Refuses parallelism in which two models cannot be trained against each other.

    Raises:
        ConfigError: the arguments ask for it.
    """
    if args.deepspeed_plugin is not None:
        raise ConfigError("DeepSpeed's engine trains one model, not two. Use --accelerate fsdp2 or ddp.")
    if args.tensor_parallel_size > 1:
        raise ConfigError(
            "--tensor_parallel_size gives processes common batches, and adversarial training needs one for each. Use "
            "--accelerate fsdp2 or ddp."
        )
    if args.fsdp_size > 1 and args.needs_reference:
        raise ConfigError(
            "--beta and --estimator spin keep a second, whole generator, which --fsdp_size cannot shard. Use "
            "--accelerate ddp, or --lambda_mle in place of --beta."
        )
    if args.fsdp_size > 1 and args.needs_embeddings:
        raise ConfigError(
            "Gumbel samples and gradient penalties read whole embeddings, which --fsdp_size shards. Use --accelerate "
            "ddp, or another --estimator and --discriminator_loss without penalties."
        )
