"""Which numbers the options of commands can have: one table, checked before any work. Imports nothing heavy.

An option means the same in every command, so it stands here once. What depends on another option is checked by the
command that has both.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple


# What a command line means as a number below 0 and not as the name of an option; argparse knows no exponents.
NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|-inf$|-nan$")


class Range(NamedTuple):
    """From `least` to `most`; with `above` or `below` without that end.

    Attributes:
        exceptions: Numbers outside that stand for something else, such as -1 for "not set".
    """

    least: float = 0
    most: float = math.inf
    above: bool = False
    below: bool = False
    exceptions: tuple[float, ...] = ()

    def holds(self, number: float) -> bool:
        """Whether a number is in the range; one that is not finite never is."""
        if number in self.exceptions:
            return True
        low = number > self.least if self.above else number >= self.least
        high = number < self.most if self.below else number <= self.most
        return math.isfinite(number) and low and high

    def __str__(self) -> str:
        low = f"above {self.least:,.10g}" if self.above else f"at least {self.least:,.10g}"
        if self.most in (MOST, math.inf):
            return low
        return f"{low} and {'below' if self.below else 'at most'} {self.most:,.10g}"


# More than any run counts to, and what a signed integer of 32 bits holds.
MOST = 2**31 - 1
ANY_NUMBER = Range(-MOST, MOST)
COUNT = Range(1, MOST)
# Tokens of a text, and of a vocabulary: a row of more would fill the memory before a step is taken.
MOST_TOKENS = 2**24
TOKENS = Range(1, MOST_TOKENS)
COUNT_OR_NONE = Range(0, MOST)
POSITIVE = Range(0, MOST, above=True)
NOT_NEGATIVE = Range(0, MOST)
# A rate beyond this is a slip of the exponent.
RATE = Range(0, 1000)
SHARE = Range(0, 1)
PART = Range(0, 1, above=True, below=True)
SHARE_ABOVE_0 = Range(0, 1, above=True)
DECAY = Range(0, 1, below=True)
# What NumPy's generator takes.
SEED = Range(0, 2**32 - 1)
PORT = Range(1, 65535)


def _table(**names: str) -> dict[str, Range]:
    ranges = globals()
    return {name: ranges[kind] for kind, listed in names.items() for name in listed.split()}


RANGES: dict[str, Range] = {
    **_table(
        COUNT="""
            auc_window batch_size codebook_size dataloader_prefetch_factor ddp_bucket_cap_mb ddp_timeout
            early_stopping_patience eval_accumulation_steps fsdp_size gpus gradient_accumulation_steps group_size
            guidance_block guidance_top_k heldout_steps hop_length length limit lora_alpha lora_r loss_tokens
            max_eval_samples max_train_samples monitor_steps num_beams num_candidates num_frames num_groups
            num_iterations num_levels num_mel_bins num_return_sequences num_samples num_texts patch_size
            per_device_eval_batch_size per_device_train_batch_size pretrain_steps rollout_batch_size rounds rows
            sample_batch_size samples samples_per_class sampling_rate save_total_limit steps teacher_batch_size
            tensor_parallel_size top_ks torch_empty_cache_steps
        """,
        TOKENS="""
            loss_vocab_size max_answer_length max_length max_new_tokens max_prompt_length new_tokens
            num_virtual_tokens sample_max_new_tokens text_length tokenizer_vocab_size vocab_size
        """,
        COUNT_OR_NONE="""
            augmented_copies bootstrap dataloader_num_workers discriminator_lora_r discriminator_steps
            discriminator_warmup_steps distillation_warmup_steps doc_stride eval_copies generator_steps
            mle_warmup_steps num_eval_samples pad_vocab_to_multiple_of prompt_tokens reference_steps replay_size
            select_best shuffle_buffer_size top_k
        """,
        POSITIVE="""
            advantage_power eval_steps guidance_temperature gumbel_beta_max gumbel_temperature logging_steps megabytes
            memory_gb peak_tflops repetition_penalty save_steps spin_beta weight_temperature
        """,
        NOT_NEGATIVE="""
            adam_epsilon advantage_clip advantage_min_std augmentation_strength beta calibration_weight
            train_file_weights decay_steps density_ratio_weight discriminator_weight_decay epsilon eval_delay
            gradient_penalty_weight guidance_weight lambda_mle lambda_mle_final neftune_noise_alpha num_train_epochs
            price r1_gamma sample_temperature seconds teacher_temperature temperature temperatures token_divergence_beta
            trim_range warmup_steps weight_baseline weight_clip weight_decay
        """,
        RATE="learning_rate muon_learning_rate discriminator_learning_rate",
        SHARE="""
            anchor_soft_targets discriminator_warmup_auc gamma gate_auc label_smoothing_factor loudness_share min_p
            min_ps real_label rejection_threshold replay_fraction
        """,
        SHARE_ABOVE_0="top_p top_ps sample_top_p mfu",
        PART="validation_fraction ema_decay",
        DECAY="""
            adam_beta1 adam_beta2 discriminator_adam_beta1 discriminator_adam_beta2 lora_dropout muon_momentum
        """,
        SEED="seed seeds data_seed",
        PORT="port",
        ANY_NUMBER="local_rank",
    ),
    # -1: as many as the epochs have.
    "max_steps": Range(1, MOST, exceptions=(-1, 0)),
    # No limit is a limit, too.
    "max_grad_norm": Range(0, MOST, exceptions=(math.inf,)),
    "discriminator_max_grad_norm": Range(0, MOST, exceptions=(math.inf,)),
}


def wrong_number(values: Mapping[str, object]) -> str | None:
    """The sentence about the first option whose number is out of its range; None where all are in theirs.

    Args:
        values: Options by name: numbers, lists of numbers, and others, which are passed over.
    """
    for name, value in values.items():
        for number in _numbers(value):
            wanted = RANGES.get(name, ANY_NUMBER)
            if not wanted.holds(number):
                # An end that goes without saying is said to who is beyond it.
                unsaid = f" and at most {MOST:,}" if wanted.most == MOST and MOST < number < math.inf else ""
                return f"--{name} must be {wanted}{unsaid}, got {number}."
    return None


def _numbers(value: object) -> Iterable[float]:
    for entry in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(entry, (int, float)) and not isinstance(entry, bool):
            yield entry
