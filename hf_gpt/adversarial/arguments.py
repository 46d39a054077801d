"""The options of adversarial training. Imports nothing heavy: `--help` reads this class."""

from dataclasses import dataclass
from typing import Literal

from hf_gpt.option_values import option


@dataclass
class AdversarialArguments:
    """How generator and discriminator are trained against each other.

    Fields that `HfGptTrainingArguments` has too are here for their other defaults.
    """

    _argument_group_name = "adversarial"

    output_dir: str | None = option("runs/adversarial", "Folder of the run: checkpoints, model, report and settings.")
    optimizer: Literal["muon", "adamw"] = option("adamw", "The generator's optimizer. The discriminator's is AdamW.")
    learning_rate: float = option(1e-4, "Peak learning rate of the generator.")
    lr_scheduler_type: str = option("constant_with_warmup", "Learning rate schedule of the generator.")
    weight_decay: float = option(0.0, "Weight decay of the generator's matrices.")
    max_steps: int = option(
        -1, "All steps, warm-ups included; each updates the generator at most once. -1: use --num_train_epochs."
    )

    # Schedule
    mle_warmup_steps: int = option(0, "Steps of maximum likelihood (MLE) at the start; 0 for a trained generator.")
    discriminator_warmup_steps: int = option(
        100, "Steps that train the discriminator alone, at most, before the first adversarial step."
    )
    discriminator_warmup_auc: float = option(0.65, "Held-out AUC that ends the discriminator's warm-up early.")
    distillation_warmup_steps: int = option(
        0,
        "Distillation warm-up: steps on the MLE term alone, by --anchor_soft_targets. It follows the discriminator's "
        "warm-up and needs a language model as discriminator.",
    )
    discriminator_steps: int = option(2, "Updates of the discriminator before the generator's, in each loop.")
    discriminator_texts: Literal["own", "shared"] = option(
        "own",
        "own: new texts are sampled for the discriminator. shared: it learns from the generator's texts of the same "
        "step, after it has scored them.",
    )
    generator_steps: int = option(1, "Updates of the generator in each loop, one in a step.")

    # Rollouts
    max_prompt_length: int | None = option(None, "Longest prompt in tokens; the last ones are kept. Default: no limit.")
    max_new_tokens: int = option(64, "Longest completion in tokens, generated or real, the end-of-text token included.")
    overlong: Literal["truncate", "drop", "error"] = option(
        "truncate",
        "For too long texts and prompts: truncate cuts them, drop leaves them out, error stops. The log says how many "
        "there are.",
    )
    group_size: int | None = option(
        None,
        "Completions of a prompt, compared with each other. It must divide the batch size. Default: 8 with prompts, "
        "the whole batch without.",
    )
    temperature: float = option(
        1.0,
        "Temperature of rollouts, and of the policy in loss, ratio, KL and entropy. The MLE term and the held-out "
        "loss are always at temperature 1.",
    )
    top_p: float = option(
        1.0,
        "Sample rollouts from the likeliest tokens of this total probability; the policy is truncated alike. Not with "
        "spin, nor with a language model as discriminator.",
    )
    top_k: int = option(0, "Sample rollouts from this many likeliest tokens; 0: from all. Limits as for --top_p.")
    min_p: float = option(
        0.0, "Least probability of a token in rollouts, as a share of the likeliest. Limits as for --top_p."
    )
    rollout_batch_size: int | None = option(None, "Completions generated at once. Default: the whole batch.")
    rollout_weight_dtype: Literal["bfloat16", "int8"] | None = option(
        None,
        "Type of the weights in rollouts: rounded weights sample faster, and slightly differently. int8 is for CPUs. "
        "Default: bfloat16 with --bf16, else the generator's own.",
    )
    vllm_server: str | None = option(
        None,
        "Address of a vLLM server that samples the rollouts, such as http://localhost:8000. It gets the generator's "
        "weights after every update. Needs pip install 'trl[vllm]'.",
    )
    num_iterations: int = option(1, "Updates of the generator on the same rollouts; above 1 needs --estimator grpo.")

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
    ] = option(
        "bce",
        "Loss of the discriminator. With a language model as discriminator: mediator learns real and generated texts "
        "(CoT); density learns real texts, and its ratio to the generator is the score.",
    )
    real_label: float = option(0.9, "One-sided label smoothing: target of real texts with --discriminator_loss bce.")
    reward_level: Literal["sequence", "prefix"] = option(
        "sequence", "Score whole texts, or every prefix, which needs a causal discriminator."
    )
    discriminator_learning_rate: float = option(1e-4, "Learning rate of the discriminator.")
    discriminator_lr_scheduler_type: str = option(
        "constant", "Learning rate schedule of the discriminator, over its updates."
    )
    discriminator_adam_beta1: float = option(0.5, "Beta 1 of the discriminator's AdamW.")
    discriminator_adam_beta2: float = option(0.999, "Beta 2 of the discriminator's AdamW.")
    discriminator_weight_decay: float = option(0.01, "Weight decay of the discriminator's matrices.")
    discriminator_max_grad_norm: float = option(1.0, "The discriminator's gradient is clipped to this norm.")
    replay_size: int = option(2048, "Old generated texts kept for replay; 0: none.")
    replay_fraction: float = option(0.25, "Share of replayed texts among the discriminator's generated texts.")
    calibration_weight: float = option(
        0.0, "Weight of GRGC's calibration of scores within a group to Gaussian quantiles."
    )
    density_ratio_weight: float = option(
        0.3, "With --discriminator_loss density: weight of cross-entropy on the log-ratio, beside MLE."
    )
    r1_gamma: float = option(0.0, "Weight of the R1 penalty at the embeddings of real texts.")
    gradient_penalty_weight: float = option(
        0.0, "Weight of the gradient penalty between real and generated texts (WGAN-GP)."
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
        "likelihood",
    ] = option(
        "reinforce",
        "Gradient estimator of the generator; docs/guides/adversarial.md describes each. likelihood: maximum "
        "likelihood in every step, with --anchor_soft_targets distillation; to compare with.",
    )
    token_divergence: Literal["reverse_kl", "forward_kl", "jsd", "skew_reverse_kl", "skew_forward_kl"] = option(
        "reverse_kl",
        "exact_token: divergence between the next-token distributions of generator and language model. With --gamma "
        "above 0 it counts at later tokens too.",
    )
    token_divergence_beta: float = option(
        0.5, "jsd: weight of the language model in the mixture. skew_*: share of the first distribution."
    )
    reward: Literal[
        "logit", "log_sigmoid", "softplus", "sigmoid", "centred_sigmoid", "ratio", "pairwise", "logit_difference"
    ] = option(
        "logit",
        "Reward from the discriminator's score; it decides which divergence falls. pairwise: against the prompt's "
        "real text. logit_difference: for each token, with --reward_level prefix.",
    )
    gamma: float = option(1.0, "Discount of the rewards of later tokens.")
    baseline: Literal["group", "moving_average", "none"] = option(
        "group", "Subtracted from the reward: the mean of the group, or the moving average over updates."
    )
    advantage_scale: Literal["none", "std", "auc"] = option(
        "auc",
        "std: divide advantages by their standard deviation. auc: also multiply by 2 AUC - 1 of the discriminator on "
        "held-out texts, 0 until there are enough scores. none: neither.",
    )
    advantage_min_std: float = option(
        0.1, "Least divisor in --advantage_scale, so that small differences are not amplified."
    )
    advantage_power: float = option(1.0, "Signed power of advantages; GRGC uses 1.5.")
    advantage_clip: float = option(5.0, "Largest absolute advantage; 0: no limit.")
    normalization: Literal["sequence", "token", "length"] = option(
        "length", "Loss over tokens. sequence: sum in each text. length: mean in each text. token: mean over the batch."
    )
    epsilon: float = option(0.2, "grpo: the probability ratio is clipped to 1 +- epsilon.")
    beta: float = option(0.0, "Weight of the KL divergence from the generator after its warm-up.")
    lambda_mle: float = option(0.5, "Weight of the MLE term on real texts, which prevents collapse.")
    lambda_mle_final: float | None = option(
        None, "Weight of the MLE term at the last step, reached linearly. Default: constant."
    )
    anchor_soft_targets: float = option(
        0.0,
        "Mix of hard and soft targets in the MLE term. 0: the real next token. 1: the discriminator language model's "
        "distribution (distillation), good for a generator smaller than the discriminator.",
    )
    weight_clip: float = option(4.0, "weighted_likelihood: largest absolute logit.")
    weight_temperature: float = option(1.0, "weighted_likelihood: temperature of the weights; above 1 evens them out.")
    weight_baseline: float = option(0.0, "weighted_likelihood: MaliGAN's baseline, 0 or 1.")
    select_best: int = option(0, "weighted_likelihood: learn only from this many best texts of a group; 0: all.")
    gumbel_temperature: float = option(
        1.0, "gumbel: temperature at the start; at the end it is divided by --gumbel_beta_max."
    )
    gumbel_beta_max: float = option(1.0, "gumbel: factor by which the temperature has fallen at the last step.")
    spin_beta: float = option(0.1, "spin: scale of the log-ratio, lambda in the paper.")
    spin_loss: Literal["logistic", "chi2"] = option("logistic", "spin: the loss.")
    reference_steps: int = option(0, "Steps after which the reference of spin or KL is renewed; 0: never.")

    # Monitoring
    gate_auc: float = option(0.55, "Gate: below this held-out AUC the generator is not updated. 0: no gate.")
    heldout_steps: int = option(
        1,
        "Updates of the generator between two scorings of held-out texts, for AUC, gate and alerts. With prompts, "
        "each samples another batch of texts.",
    )
    auc_window: int = option(512, "The AUC is over this many latest held-out scores of each kind.")
    monitor_steps: int = option(10, "Steps between two checks of texts and held-out loss for alerts.")
    on_collapse: Literal["stop", "warn"] = option(
        "stop", "After a collapse: stop and keep the best checkpoint, or warn only."
    )
    num_eval_samples: int = option(256, "Texts generated at each evaluation, for its metrics; 0: none.")
