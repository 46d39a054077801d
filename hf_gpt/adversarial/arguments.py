"""The options of adversarial training. Imports nothing heavy: `--help` reads this class."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class AdversarialArguments:
    """How generator and discriminator are trained against each other.

    Fields that `HfGptTrainingArguments` has too stand here for their other defaults.
    """

    _argument_group_name = "adversarial"

    output_dir: str | None = field(
        default="runs/adversarial", metadata={"help": "Folder of the run: checkpoints, model, report and settings."}
    )
    optimizer: Literal["muon", "adamw"] = field(
        default="adamw", metadata={"help": "The generator's optimizer. The discriminator's is AdamW."}
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "Highest learning rate of the generator."})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "The generator's schedule."})
    weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of the generator's matrices."})
    max_steps: int = field(
        default=-1,
        metadata={"help": "Steps in all, warm-ups included; each is at most one update of the generator. -1: epochs."},
    )

    # Schedule
    mle_warmup_steps: int = field(
        default=0, metadata={"help": "Steps of likelihood training before anything else; 0 for a trained generator."}
    )
    discriminator_warmup_steps: int = field(
        default=100,
        metadata={
            "help": "Most steps in which the discriminator alone is trained, before the first against the generator."
        },
    )
    discriminator_warmup_auc: float = field(
        default=0.65, metadata={"help": "Held-out AUC of the discriminator that ends its warm-up early."}
    )
    distillation_warmup_steps: int = field(
        default=0,
        metadata={
            "help": "Steps after that on the anchor alone, in which a language model as discriminator teaches the "
            "generator by --anchor_soft_targets."
        },
    )
    discriminator_steps: int = field(default=2, metadata={"help": "Updates of the discriminator in a round."})
    discriminator_texts: Literal["own", "shared"] = field(
        default="own",
        metadata={
            "help": "own: the discriminator learns from texts drawn for it. shared: from those that the generator "
            "learns from in the same step, once it has judged them, so that a step draws once."
        },
    )
    generator_steps: int = field(default=1, metadata={"help": "Updates of the generator in a round, a step each."})

    # Rollouts
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "Tokens kept of a prompt, its last ones. Left out: all."}
    )
    max_new_tokens: int = field(
        default=64, metadata={"help": "Most tokens of a completion, generated or real, the end of text included."}
    )
    overlong: Literal["truncate", "drop", "error"] = field(
        default="truncate",
        metadata={
            "help": "What is done about a text or prompt that is too long: truncate cuts it, drop leaves it out, "
            "error stops. It is counted."
        },
    )
    group_size: int | None = field(
        default=None,
        metadata={
            "help": "Completions of a prompt, compared with each other; divides the batch. Left out: 8 with prompts, "
            "without them the whole batch."
        },
    )
    temperature: float = field(
        default=1.0,
        metadata={
            "help": "Temperature of rollouts and of the policy that learns from them: loss, ratio, KL and entropy are "
            "those of logits / temperature. Anchor and held-out loss are the model's own, at 1."
        },
    )
    top_p: float = field(
        default=1.0,
        metadata={
            "help": "Rollouts from the likeliest tokens of this total mass; the policy is what is left of them. Not "
            "for spin, nor for a language model as discriminator."
        },
    )
    top_k: int = field(
        default=0, metadata={"help": "Rollouts from this many likeliest tokens; 0: from all. As --top_p."}
    )
    min_p: float = field(
        default=0.0,
        metadata={"help": "Rollouts from tokens at least this likely, as a share of the likeliest. As --top_p."},
    )
    rollout_batch_size: int | None = field(
        default=None, metadata={"help": "Completions generated at once. Left out: all of a batch."}
    )
    rollout_weight_dtype: Literal["bfloat16", "int8"] | None = field(
        default=None,
        metadata={
            "help": "Weights that rollouts are drawn by, faster and rounded: a little off the generator that is "
            "trained. int8 is for CPUs. Left out: bfloat16 with --bf16, else the generator's own."
        },
    )
    vllm_server: str | None = field(
        default=None,
        metadata={
            "help": "Address of a vLLM server that generates in place of our sampler, as http://localhost:8000. It "
            "gets the generator's weights after every update. Needs pip install 'trl[vllm]'."
        },
    )
    num_iterations: int = field(
        default=1, metadata={"help": "Updates of the generator by the same rollouts; above 1 needs --estimator grpo."}
    )

    # Discriminator
    discriminator_loss: Literal[
        "bce",
        "hinge",
        "least_squares",
        "wasserstein",
        "bradley_terry",
        "relativistic",
        "relativistic_average",
        "mediator",
        "density",
    ] = field(
        default="bce",
        metadata={
            "help": "Loss of the discriminator. For a language model in its place: mediator learns real and generated "
            "texts alike, as in CoT; density learns the real ones, and its ratio to the generator judges."
        },
    )
    real_label: float = field(
        default=0.9, metadata={"help": "Target of real texts with --discriminator_loss bce: one-sided smoothing."}
    )
    reward_level: Literal["sequence", "prefix"] = field(
        default="sequence",
        metadata={"help": "Score whole texts, or every prefix, which a causal discriminator does in one pass."},
    )
    discriminator_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the discriminator."})
    discriminator_lr_scheduler_type: str = field(
        default="constant", metadata={"help": "The discriminator's schedule over its updates."}
    )
    discriminator_adam_beta1: float = field(default=0.5, metadata={"help": "Decay of its Adam's first moment."})
    discriminator_adam_beta2: float = field(default=0.999, metadata={"help": "Decay of its Adam's second moment."})
    discriminator_weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of its matrices."})
    discriminator_max_grad_norm: float = field(default=1.0, metadata={"help": "Its gradient is clipped to this norm."})
    replay_size: int = field(default=2048, metadata={"help": "Old generated texts that are kept; 0: none."})
    replay_fraction: float = field(
        default=0.25, metadata={"help": "Share of them among the generated texts the discriminator learns from."}
    )
    calibration_weight: float = field(
        default=0.0, metadata={"help": "Weight of GRGC's calibration of a group's scores to Gaussian quantiles."}
    )
    density_ratio_weight: float = field(
        default=0.3,
        metadata={
            "help": "With --discriminator_loss density: weight of telling texts apart by the ratio, beside likelihood."
        },
    )
    r1_gamma: float = field(default=0.0, metadata={"help": "Weight of the R1 penalty at real texts' embeddings."})
    gradient_penalty_weight: float = field(
        default=0.0, metadata={"help": "Weight of the gradient penalty between real and generated texts (WGAN-GP)."}
    )

    # Generator
    estimator: Literal[
        "reinforce",
        "grpo",
        "weighted_likelihood",
        "exact_token",
        "gumbel",
        "relativistic_gumbel",
        "spin",
    ] = field(default="reinforce", metadata={"help": "Gradient of the generator; see estimators.py for what each is."})
    token_divergence: Literal["reverse_kl", "forward_kl", "jsd", "skew_reverse_kl", "skew_forward_kl"] = field(
        default="reverse_kl",
        metadata={
            "help": "exact_token: what is descended between the next-token distributions of generator and language "
            "model, at once and, with --gamma, by what a token leads to. See divergences.py."
        },
    )
    token_divergence_beta: float = field(
        default=0.5,
        metadata={"help": "jsd: weight of the language model in the mixture; skew_*: share of the own distribution."},
    )
    reward: Literal[
        "logit", "log_sigmoid", "softplus", "sigmoid", "centred_sigmoid", "ratio", "pairwise", "logit_difference"
    ] = field(
        default="logit",
        metadata={
            "help": "Reward from the score: chooses the divergence. pairwise: against the prompt's real text. "
            "logit_difference: of each token, with --reward_level prefix."
        },
    )
    gamma: float = field(default=1.0, metadata={"help": "Discount of later tokens' rewards."})
    baseline: Literal["group", "moving_average", "none"] = field(
        default="group", metadata={"help": "Taken off the reward: mean of the group, or of former updates."}
    )
    advantage_scale: Literal["none", "std", "auc"] = field(
        default="auc",
        metadata={
            "help": "Divide by the standard deviation or not; auc: and multiply by what the discriminator's held-out "
            "AUC is above chance, where it starts until there are held-out scores enough."
        },
    )
    advantage_min_std: float = field(
        default=0.1, metadata={"help": "Least divisor, so that noise is never blown up to the size of a signal."}
    )
    advantage_power: float = field(default=1.0, metadata={"help": "Signed power of advantages; GRGC takes 1.5."})
    advantage_clip: float = field(default=5.0, metadata={"help": "Largest absolute advantage; 0: no limit."})
    normalization: Literal["sequence", "token", "length"] = field(
        default="length",
        metadata={"help": "sequence: sums over tokens; length: their mean in each text; token: over the batch."},
    )
    epsilon: float = field(default=0.2, metadata={"help": "Clip of the probability ratio in --estimator grpo."})
    beta: float = field(default=0.0, metadata={"help": "Weight of KL to the generator as it was after its warm-up."})
    lambda_mle: float = field(
        default=0.5, metadata={"help": "Weight of the real texts' likelihood, the anchor against collapse."}
    )
    lambda_mle_final: float | None = field(
        default=None, metadata={"help": "Weight that the anchor moves to by the last step. Left out: it stays."}
    )
    anchor_soft_targets: float = field(
        default=0.0,
        metadata={
            "help": "Share of the anchor that real texts' next tokens leave to the language model's whole next-token "
            "distribution at the same places (distillation). For a generator smaller than the discriminator: 1."
        },
    )
    weight_clip: float = field(default=4.0, metadata={"help": "weighted_likelihood: largest absolute logit."})
    weight_temperature: float = field(default=1.0, metadata={"help": "weighted_likelihood: evens the weights out."})
    weight_baseline: float = field(default=0.0, metadata={"help": "weighted_likelihood: MaliGAN's baseline, 0 or 1."})
    select_best: int = field(
        default=0, metadata={"help": "weighted_likelihood: learn from this many best of a group alone; 0: all."}
    )
    gumbel_temperature: float = field(
        default=1.0, metadata={"help": "gumbel: temperature at the start; ends at this over --gumbel_beta_max."}
    )
    gumbel_beta_max: float = field(default=1.0, metadata={"help": "gumbel: inverse temperature by the last step."})
    spin_beta: float = field(default=0.1, metadata={"help": "spin: scale of the log-ratio, lambda in the paper."})
    spin_loss: Literal["logistic", "chi2"] = field(default="logistic", metadata={"help": "spin: its loss."})
    reference_steps: int = field(
        default=0, metadata={"help": "Steps after which the reference of spin or KL becomes the generator; 0: never."}
    )

    # Watching
    gate_auc: float = field(
        default=0.55, metadata={"help": "Held-out AUC below which the generator is not updated; 0: always."}
    )
    heldout_steps: int = field(
        default=1,
        metadata={
            "help": "Updates of the generator between looks at held-out texts, which AUC, gate and monitors know of. "
            "With prompts a look is a batch of texts more."
        },
    )
    auc_window: int = field(default=512, metadata={"help": "Latest held-out scores of each side that AUC is over."})
    monitor_steps: int = field(default=10, metadata={"help": "Steps between looks at texts, likelihood and warnings."})
    on_collapse: Literal["stop", "warn"] = field(
        default="stop", metadata={"help": "What a collapse does: stop, keeping the best checkpoint, or warn alone."}
    )
    num_eval_samples: int = field(
        default=256, metadata={"help": "Texts generated at each evaluation, for its figures; 0: none."}
    )
