"""Which options a resumed run may change, and which make it another run. Every option stands here in one class."""

from enum import Enum
from typing import Any

from hf_gpt.errors import did_you_mean


class Change(str, Enum):
    """What is done about an option that differs from that of the checkpoint's run."""

    # It takes effect, and a line says so.
    MAY = "may change"
    # The same; the schedule is worked out anew for the step that the run is at.
    SCHEDULE = "may change, and the schedule with it"
    # It is refused by name.
    FIXED = "must stay"
    # Rows of a step: the parts may change where their product stays.
    ROWS = "may change if the rows of a step stay"
    # A name or path, judged by what lies there.
    CONTENT = "may change if the content is the same"
    # Of the machine or of one call: not compared.
    FREE = "free"


_NAMES: dict[str, dict[Change, str]] = {
    "ModelArguments": {
        Change.FIXED: "model_name_or_path model_revision model_type preset config_overrides dtype "
        "pad_vocab_to_multiple_of",
        Change.MAY: "attn_implementation",
        Change.FREE: "trust_remote_code",
    },
    "DataArguments": {
        Change.FIXED: "streaming train_file_weights text_column document_separator validation_fraction max_length "
        "overlong packing_strategy tokenizer_name tokenizer_vocab_size",
        Change.CONTENT: "train_file validation_file",
        Change.MAY: "malformed_rows",
    },
    "TaskArguments": {
        Change.FIXED: "task architecture dataset_config_name train_split validation_split validation_fraction "
        "group_column held_out_groups streaming shuffle_buffer_size max_train_samples max_eval_samples text_column "
        "text_pair_column label_column class_names start_from_counts tokens_column tags_column context_column "
        "question_column answers_column source_column target_column messages_column media_column num_levels "
        "patch_size codebook_size audio_encoding sampling_rate hop_length num_mel_bins num_groups num_frames "
        "trim_range loudness_share normalize_by_group augmented_copies augmentation_strength prompt_template "
        "max_length doc_stride overlong tools_column loss_on tokenizer_name tokenizer_vocab_size",
        Change.CONTENT: "train_file validation_file dataset_name",
        Change.MAY: "malformed_rows eval_copies temperature top_p samples_per_class max_answer_length "
        "predict_with_generate max_new_tokens num_beams",
    },
    "TextArguments": {
        Change.FIXED: "text_column document_separator prompt_tokens prompt_column completion_column "
        "validation_fraction max_train_samples tokenizer_name tokenizer_vocab_size",
        Change.CONTENT: "train_file validation_file",
    },
    "DiscriminatorArguments": {
        Change.FIXED: "discriminator discriminator_preset discriminator_overrides discriminator_trunk "
        "discriminator_lora_r",
    },
    "PeftArguments": {
        Change.FIXED: "use_peft peft_method lora_r lora_alpha lora_dropout lora_target_modules num_virtual_tokens "
        "load_in_4bit",
        Change.MAY: "merge_adapter",
    },
    "SamplingArguments": {
        Change.MAY: "sample_prompts sample_max_new_tokens sample_temperature sample_top_p sample_batch_size",
    },
    # Before those of `HfGptTrainingArguments`, some of which are stricter here.
    "AdversarialArguments": {
        Change.FIXED: "optimizer per_device_train_batch_size gradient_accumulation_steps mle_warmup_steps "
        "discriminator_warmup_steps discriminator_warmup_auc distillation_warmup_steps discriminator_steps "
        "discriminator_texts generator_steps max_prompt_length max_new_tokens overlong group_size temperature top_p "
        "top_k min_p rollout_weight_dtype num_iterations discriminator_loss real_label reward_level "
        "discriminator_adam_beta1 discriminator_adam_beta2 discriminator_max_grad_norm replay_size replay_fraction "
        "calibration_weight density_ratio_weight r1_gamma gradient_penalty_weight estimator token_divergence "
        "token_divergence_beta reward gamma baseline advantage_scale advantage_min_std advantage_power advantage_clip "
        "normalization epsilon beta lambda_mle lambda_mle_final anchor_soft_targets weight_clip weight_temperature "
        "weight_baseline select_best gumbel_temperature gumbel_beta_max spin_beta spin_loss reference_steps gate_auc "
        "heldout_steps auc_window monitor_steps",
        Change.SCHEDULE: "learning_rate lr_scheduler_type max_steps discriminator_learning_rate "
        "discriminator_lr_scheduler_type",
        Change.MAY: "weight_decay rollout_batch_size discriminator_weight_decay on_collapse num_eval_samples",
        Change.FREE: "output_dir vllm_server",
    },
    "HfGptTrainingArguments": {
        Change.FIXED: "optimizer optim optim_args optim_target_modules label_smoothing_factor fp16 "
        "average_tokens_across_devices neftune_noise_alpha seed data_seed train_sampling_strategy length_column_name "
        "label_names remove_unused_columns dataloader_drop_last auto_find_batch_size",
        Change.ROWS: "per_device_train_batch_size gradient_accumulation_steps",
        Change.SCHEDULE: "max_steps num_train_epochs learning_rate muon_learning_rate lr_scheduler_type "
        "lr_scheduler_kwargs warmup_steps decay_steps",
        Change.MAY: "muon_momentum weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm ema_decay "
        "early_stopping_patience nan_action bf16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing "
        "activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile "
        "torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache use_cpu "
        "full_determinism per_device_eval_batch_size logging_strategy logging_steps logging_first_step "
        "logging_nan_inf_filter include_num_input_tokens_seen report_to project eval_strategy eval_steps eval_delay "
        "eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics "
        "batch_eval_metrics save_only_model save_strategy save_steps save_on_each_node save_total_limit "
        "enable_jit_checkpoint push_to_hub hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision "
        "load_best_model_at_end metric_for_best_model greater_is_better restore_callback_states_from_checkpoint "
        "dataloader_num_workers tensor_parallel_size fsdp_size",
        Change.FREE: "output_dir run_name overwrite_output_dir resume_from_checkpoint dry_run keep_freed_memory "
        "prediction_loss_only torch_empty_cache_steps log_on_each_node log_level log_level_replica disable_tqdm "
        "trackio_space_id trackio_bucket_id trackio_static_space_id hub_token ignore_data_skip accelerator_config "
        "parallelism_config dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
        "dataloader_multiprocessing_context dataloader_in_order ddp_find_unused_parameters ddp_bucket_cap_mb "
        "ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug "
        "skip_memory_metrics do_train do_eval do_predict local_rank",
    },
}

# What a class of options does, by class and name.
CLASSES: dict[str, dict[str, Change]] = {
    kind: {name: change for change, names in groups.items() for name in names.split()}
    for kind, groups in _NAMES.items()
}
# Options that may take another value, but not be switched on or off: the checkpoint lacks what that takes.
_STAYS_ON_OR_OFF = ("ema_decay",)


def change_of(kind: str, name: str) -> Change:
    """The class of an option; `AdversarialConfig` has those of two. Raises `KeyError` for one that has none yet."""
    kinds = ("AdversarialArguments", "HfGptTrainingArguments") if kind == "AdversarialConfig" else (kind,)
    for kind in kinds:
        if name in CLASSES[kind]:
            return CLASSES[kind][name]
    raise KeyError(f"{name} of {kind} has no class in resume_options{did_you_mean(name, sorted(CLASSES[kind]))}")


def is_refused(name: str, change: Change, before: Any, now: Any) -> bool:
    """Whether a difference makes a run another one by itself."""
    return change is Change.FIXED or (name in _STAYS_ON_OR_OFF and (before is None) != (now is None))
