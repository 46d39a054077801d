"""Checks that models, texts and arguments fit together, before any training."""

import logging
from typing import Any

from transformers import PreTrainedModel

from hf_gpt.adversarial.config import REWARDED, AdversarialConfig
from hf_gpt.adversarial.data.dataset import TextRows
from hf_gpt.adversarial.discriminator.model import check_generator, check_pair
from hf_gpt.adversarial.monitoring.evaluation import check_fresh_auc
from hf_gpt.errors import ConfigError


logger = logging.getLogger(__name__)


def check_pair_and_data(
    args: AdversarialConfig,
    model: PreTrainedModel,
    discriminator: PreTrainedModel | None,
    rows: TextRows,
    eval_rows: TextRows,
    reward_function: Any,
    rollout_function: Any,
    processing_class: Any = None,
    *,
    has_text_rewards: bool = False,
) -> None:
    """Refuses models, data and arguments that do not fit together.

    Args:
        args: The arguments.
        model: The generator.
        discriminator: Its discriminator, if it has one.
        rows, eval_rows: Real texts to learn from, and held-out ones.
        reward_function, rollout_function: As the trainer got them.
        processing_class: The generator's tokenizer, which the discriminator's is held against.
        has_text_rewards: Whether there are reward functions on texts.

    Raises:
        ConfigError: they do not.
    """
    _check_judges(args, discriminator is not None, reward_function is not None, has_text_rewards)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    if len(rows) < batch:
        raise ConfigError(
            f"{len(rows)} texts to train on are fewer than the {batch} of a step: lower "
            "--per_device_train_batch_size or --gradient_accumulation_steps."
        )
    if (args.metric_for_best_model or "").endswith("fresh_auc"):
        check_fresh_auc(min(args.num_eval_samples, len(eval_rows)))
    largest_token = max(rows.largest_token, eval_rows.largest_token)
    longest_prompt = max(rows.longest, eval_rows.longest)
    check_generator(
        model,
        largest_token=largest_token,
        longest_prompt=longest_prompt,
        max_new_tokens=args.max_new_tokens,
        samples=rollout_function is None,
    )
    if discriminator is not None:
        check_pair(
            model,
            discriminator,
            largest_token=largest_token,
            longest=longest_prompt + args.max_new_tokens,
            is_language_model=args.has_language_model,
            reads_prefixes=args.reward_level == "prefix",
            reads_embeddings=args.needs_embeddings,
            needs_bound=args.discriminator_loss == "wasserstein" and not args.gradient_penalty_weight,
            tokenizer=processing_class,
        )
    if args.process_index == 0:
        warn_of_sameness(rows, args.max_new_tokens)


def _check_judges(args: AdversarialConfig, has_discriminator: bool, has_scores: bool, has_text_rewards: bool) -> None:
    """Refuses too many or too few of what can score the texts."""
    if not args.needs_discriminator and (has_discriminator or has_scores or has_text_rewards):
        what = {"spin": "self-play", "likelihood": "maximum likelihood"}[args.estimator]
        raise ConfigError(f"--estimator {args.estimator} is {what}: give no discriminator and no reward function.")
    if args.needs_discriminator and has_discriminator and has_scores:
        raise ConfigError(
            "give either a discriminator or a reward_function, which takes its place. Rewards beside a discriminator "
            "go to reward_funcs, as functions of prompts and completions."
        )
    if args.needs_discriminator and not (has_discriminator or has_scores or has_text_rewards):
        raise ConfigError("give a discriminator, reward_funcs or a reward_function: nothing scores the texts.")
    if has_scores and args.estimator not in (*REWARDED, "weighted_likelihood"):
        raise ConfigError(f"--estimator {args.estimator} needs a discriminator, not a reward_function.")
    if has_text_rewards and (args.estimator not in REWARDED or has_scores):
        what = "a reward_function" if has_scores else f"--estimator {args.estimator}"
        raise ConfigError(
            f"reward_funcs do not go with {what}. They add to the rewards of --estimator {' or '.join(REWARDED)}."
        )


def check_learning(args: AdversarialConfig, discriminator: PreTrainedModel) -> None:
    """Refuses a discriminator that cannot learn, and warns of one that will not.

    Raises:
        ConfigError: all of its parameters are frozen.
    """
    if not args.discriminator_steps and not args.discriminator_warmup_steps:
        return
    if not any(parameter.requires_grad for parameter in discriminator.parameters()):
        raise ConfigError(
            "the discriminator has nothing to train: all of its parameters are frozen. Set requires_grad on those that "
            "should learn, or --discriminator_steps 0 and --discriminator_warmup_steps 0 for one that stays as it is."
        )
    if not args.discriminator_learning_rate:
        logger.warning("--discriminator_learning_rate is 0: the discriminator stays as it is.")


def warn_of_sameness(rows: TextRows, max_new_tokens: int) -> None:
    """Logs a warning where all real texts are the same, as a short limit may cut them."""
    texts = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])) for row in rows.rows}
    if len(texts) == 1 and len(rows) > 1:
        logger.warning(
            "all %d texts to train on are the same %d tokens after they were cut to --max_new_tokens %d: there is "
            "nothing to tell apart. Raise it, or look at the data.",
            len(rows),
            len(rows.rows[0]["completion_ids"]),
            max_new_tokens,
        )
