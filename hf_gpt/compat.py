"""Every private name of another library that we use: one small function each, which says why no public name serves.

A release of such a library may drop a private name without notice. `tests/test_compat.py` then fails by that name, and
what has to change stands here. `hf_gpt.models` imports nothing of ours, so what it needs stands there.
"""

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import GenerationConfig, Trainer


# Fields of a configuration as it is saved that say where it came from or how it computes (Transformers 5.17 to 5.23).
PRIVATE_CONFIG_FIELDS = ("_attn_implementation", "_experts_implementation", "_name_or_path")

# Methods that `generate` calls by these names, and that may be set on a model itself (Transformers 5.17 to 5.23).
GENERATION_METHODS = ("_sample", "_update_model_kwargs_for_generation")


# PyTorch


def lerp_all(tensors: list["torch.Tensor"], ends: list["torch.Tensor"], weight: float) -> None:
    """Moves each tensor towards its end by `weight`, all in one call.

    torch 2.9 to 2.13, `torch._foreach_lerp_`: public is `Tensor.lerp_` alone, one call for each of many weights.
    """
    import torch

    torch._foreach_lerp_(tensors, ends, weight)


def supports_amx_tiles() -> bool:
    """Whether this CPU multiplies tiles of a matrix (AMX).

    torch 2.9 to 2.13, `torch.cpu._is_amx_tile_supported`: `torch.cpu.get_capabilities` came after 2.9.
    """
    import torch

    return torch.cpu._is_amx_tile_supported()


def supports_avx512_bfloat16() -> bool:
    """Whether this CPU has AVX-512's products of bfloat16.

    torch 2.9 to 2.13, `torch.cpu._is_avx512_bf16_supported`: `torch.cpu.get_capabilities` came after 2.9.
    """
    import torch

    return torch.cpu._is_avx512_bf16_supported()


def supports_vnni() -> bool:
    """Whether this CPU has VNNI instructions, which add products of int8 without saturation.

    torch 2.9 to 2.13, `torch.cpu._is_vnni_supported`: `torch.cpu.get_capabilities` came after 2.9.
    """
    import torch

    return torch.cpu._is_vnni_supported()


def onednn_multiplies_bfloat16() -> bool:
    """Whether oneDNN has products of bfloat16 on this CPU.

    torch 2.9 to 2.13, `torch.ops.mkldnn._is_mkldnn_bf16_supported`: public is only whether there is a oneDNN.
    """
    import torch

    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def pack_linear_weight(weight: "torch.Tensor") -> "torch.Tensor":
    """A weight (N, K) in oneDNN's own layout, for no number of rows in particular.

    torch 2.9 to 2.13, `torch.ops.mkldnn._reorder_linear_weight`: public layers pack for themselves at each call.
    """
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def packed_linear() -> Callable[..., "torch.Tensor"]:
    """oneDNN's product with such a weight: of inputs, weight, bias, and the name and arguments of an activation.

    torch 2.9 to 2.13, `torch.ops.mkldnn._linear_pointwise`: `F.linear` does not take a packed weight.
    """
    import torch

    return torch.ops.mkldnn._linear_pointwise


def adjust_muon_rate(rate: float, adjustment: str | None, shape: "torch.Size") -> float:
    """The learning rate of `torch.optim.Muon` for a matrix of this shape.

    torch 2.9 to 2.13, `torch.optim._muon._adjust_lr`: only the optimizer's whole step is public.
    """
    from torch.optim._muon import _adjust_lr

    return _adjust_lr(rate, adjustment, shape)


def newton_schulz(
    update: "torch.Tensor", coefficients: tuple[float, float, float], steps: int, eps: float
) -> "torch.Tensor":
    """The orthogonal factor of a matrix as `torch.optim.Muon` computes it, in bfloat16.

    torch 2.9 to 2.13, `torch.optim._muon._zeropower_via_newtonschulz`: only the optimizer's whole step is public.
    """
    from torch.optim._muon import _zeropower_via_newtonschulz

    return _zeropower_via_newtonschulz(update, coefficients, steps, eps)


def set_last_rates(scheduler: Any, rates: list[float]) -> None:
    """Has `scheduler.get_last_lr()` say these rates.

    torch 2.9 to 2.13, `LRScheduler._last_lr`: `get_last_lr` reads it, and nothing but a step writes it.
    """
    scheduler._last_lr = rates


def convolution_class() -> type["nn.Module"]:
    """What all convolutions are derived from.

    torch 2.9 to 2.13, `torch.nn.modules.conv._ConvNd`: public are the single classes.
    """
    from torch.nn.modules.conv import _ConvNd

    return _ConvNd


def batch_norm_class() -> type["nn.Module"]:
    """What all norms with statistics of batches are derived from, instance norms included.

    torch 2.9 to 2.13, `torch.nn.modules.batchnorm._NormBase`: public are the single classes.
    """
    from torch.nn.modules.batchnorm import _NormBase

    return _NormBase


def spectral_norm_class() -> type["nn.Module"]:
    """The parametrisation that `torch.nn.utils.parametrizations.spectral_norm` registers.

    torch 2.9 to 2.13, `torch.nn.utils.parametrizations._SpectralNorm`: public is the function that registers one.
    """
    from torch.nn.utils.parametrizations import _SpectralNorm

    return _SpectralNorm


def has_global_forward_hooks() -> bool:
    """Whether a hook stands around the forward pass of every module.

    torch 2.9 to 2.13, `torch.nn.modules.module._global_forward_hooks`, `_global_forward_pre_hooks`: public functions
    register such hooks and list none.
    """
    from torch.nn.modules import module

    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


def has_forward_hooks(module: "nn.Module") -> bool:
    """Whether a hook stands around the forward pass of this module.

    torch 2.9 to 2.13, `nn.Module._forward_hooks`, `_forward_pre_hooks`: public methods register hooks and list none.
    """
    return bool(module._forward_hooks or module._forward_pre_hooks)


def set_class_name(module: "nn.Module", name: str) -> None:
    """Has a module call itself by another name than that of its class.

    torch 2.9 to 2.13, `nn.Module._get_name`: Transformers' Trainer asks this method for a model's name.
    """
    module._get_name = functools.partial(str, name)


def uncompiled(model: "nn.Module") -> "nn.Module | None":
    """The model inside one that `torch.compile` made; None where it made none.

    torch 2.9 to 2.13, `OptimizedModule._orig_mod`: weights have that name in front, and no public name gives the model.
    """
    return getattr(model, "_orig_mod", None)


# Transformers: models and configurations


def attention_implementation(config: Any) -> str | None:
    """The name of the attention that a model computes with.

    Transformers 5.17 to 5.23, `PreTrainedConfig._attn_implementation`: public is `set_attn_implementation` alone.
    """
    return config._attn_implementation


def has_sequence_classifier(config_class: type) -> bool:
    """Whether there is a model with a sequence classification head for a class of configurations.

    Transformers 5.17 to 5.23, `AutoModelForSequenceClassification._model_mapping`: `from_config` alone says so.
    """
    from transformers import AutoModelForSequenceClassification

    return config_class in AutoModelForSequenceClassification._model_mapping


def block_classes(model: Any) -> Iterable[str] | None:
    """Names of the classes whose modules stay whole where a model is split; None where it does not say.

    Transformers 5.17 to 5.23, `PreTrainedModel._no_split_modules`: no public name gives them.
    """
    return getattr(model, "_no_split_modules", None)


def tensor_parallel_plan(model: Any) -> dict[str, str] | None:
    """How a model's layers are split for tensor parallelism.

    Transformers 5.17 to 5.23, `PreTrainedModel._tp_plan`: `config.base_model_tp_plan` lacks the head.
    """
    return model._tp_plan


def fsdp_plan(model: Any) -> dict[str, str] | None:
    """Which of a model's modules FSDP2 gathers at a time.

    Transformers 5.17 to 5.23, `PreTrainedModel._fsdp_plan`: `config.base_model_fsdp_plan` lacks the head.
    """
    return model._fsdp_plan


# Transformers: generation


def sample(model: Any, input_ids: "torch.Tensor", **options: Any) -> Any:
    """What `generate` does for greedy decoding and sampling, once it has prepared everything.

    Transformers 5.17 to 5.23, `GenerationMixin._sample`: `generate`, which calls us, would prepare all of it again.
    """
    return model._sample(input_ids, **options)


def inputs_after(model: Any, model_kwargs: dict[str, Any], num_new_tokens: int) -> dict[str, Any]:
    """Arguments of a forward pass, as they are that many tokens later and without a cache.

    Transformers 5.17 to 5.23, `GenerationMixin._update_model_kwargs_for_generation`: models override it, none but
    `generate` calls it.
    """
    return model._update_model_kwargs_for_generation({}, model_kwargs, num_new_tokens=num_new_tokens)


def padding_token(generation_config: "GenerationConfig") -> "torch.Tensor | None":
    """The padding token as `generate` resolved it, on its device.

    Transformers 5.17 to 5.23, `GenerationConfig._pad_token_tensor`: `pad_token_id` is what was asked for.
    """
    return generation_config._pad_token_tensor


def end_tokens(generation_config: "GenerationConfig") -> "torch.Tensor | None":
    """The tokens that end a text as `generate` resolved them, on its device.

    Transformers 5.17 to 5.23, `GenerationConfig._eos_token_tensor`: `eos_token_id` is what was asked for.
    """
    return generation_config._eos_token_tensor


def is_given_cache(cache: Any) -> bool:
    """Whether a cache is the caller's and none that `generate` made.

    Transformers 5.17 to 5.23, `_is_user_defined`, which `generate` sets on the caller's: nothing else tells them apart.
    """
    return getattr(cache, "_is_user_defined", False)


def allowed_tokens_function(processor: Any) -> Callable[[int, "torch.Tensor"], list[int]]:
    """The function that a `PrefixConstrainedLogitsProcessor` asks for the tokens that may follow.

    Transformers 5.17 to 5.23, `_prefix_allowed_tokens_fn`: `generate` makes the processor, which has no other name.
    """
    return processor._prefix_allowed_tokens_fn


def wrap_generation_mode_arguments(wrap: Callable[[Callable], Callable]) -> None:
    """Puts what `wrap` makes of it in the place of the method by which `generate` picks what a decoding method gets.

    Transformers 5.17 to 5.23, `GenerationMixin._extract_generation_mode_kwargs`: it drops the streamer, the tokenizer
    and the assistant for a function, and no option keeps them.
    """
    from transformers.generation import GenerationMixin

    GenerationMixin._extract_generation_mode_kwargs = wrap(GenerationMixin._extract_generation_mode_kwargs)


# Transformers: Trainer


def prepare_inputs(trainer: "Trainer", inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch on the device and in the type that the trainer computes with.

    Transformers 5.17 to 5.23, `Trainer._prepare_inputs`: `training_step`, which we replace, is the only public way.
    """
    return trainer._prepare_inputs(inputs)


def train_batch_size(trainer: "Trainer") -> int:
    """Rows of a batch of all devices of this process, as the trainer has it now.

    Transformers 5.17 to 5.23, `Trainer._train_batch_size`: `args.train_batch_size` is what it was before
    `auto_find_batch_size` made it smaller, and `state.train_batch_size` is set by `train` alone.
    """
    return trainer._train_batch_size


def unlogged_loss(trainer: "Trainer") -> "torch.Tensor":
    """The sum of losses since the last log, of this process, which may be added to.

    Transformers 5.17 to 5.23, `Trainer._tr_loss`: callbacks see it in a log alone, divided by its steps.
    """
    return trainer._tr_loss


def last_logged_step(trainer: "Trainer") -> int:
    """The step of the last log, from which steps of the next mean are counted.

    Transformers 5.17 to 5.23, `Trainer._globalstep_last_logged`: `state.log_history` lists evaluations as well.
    """
    return trainer._globalstep_last_logged


def set_last_logged_step(trainer: "Trainer", step: int) -> None:
    """Sets that step.

    Transformers 5.17 to 5.23, `Trainer._globalstep_last_logged`: as above.
    """
    trainer._globalstep_last_logged = step


def _while_called(owner: Any, **values: Any) -> contextlib.ExitStack:
    """Sets attributes of an object until the end of a `with` block.

    Transformers 5.17 to 5.23, `Trainer`: it reads these settings itself, and no argument of a method replaces them.
    """
    stack = contextlib.ExitStack()
    for name, value in values.items():
        stack.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)
    return stack


def accepts_sharded_optimizer(args: Any) -> contextlib.ExitStack:
    """Inside, `Trainer.__init__` takes a sharded model with checkpoints of the optimizer, which we save ourselves.

    Transformers 5.17 to 5.23, `TrainingArguments.save_only_model`: `__init__` refuses all else for such a model.
    """
    return _while_called(args, save_only_model=args.save_only_model or args.is_sharded)


def drops_last_batch(args: Any, drop_last: bool) -> contextlib.ExitStack:
    """Inside, `Trainer` makes a loader that drops an incomplete last batch if `drop_last`.

    Transformers 5.17 to 5.23, `TrainingArguments.dataloader_drop_last`: one option serves training and evaluation.
    """
    return _while_called(args, dataloader_drop_last=drop_last)


def schedule_options(args: Any, options: dict[str, Any]) -> contextlib.ExitStack:
    """Inside, `Trainer.create_scheduler` makes a schedule with these options.

    Transformers 5.17 to 5.23, `TrainingArguments.lr_scheduler_kwargs`: some depend on the number of steps.
    """
    return _while_called(args, lr_scheduler_kwargs=options)


def evaluates_on_start(args: Any, evaluates: bool) -> contextlib.ExitStack:
    """Inside, `Trainer.train` evaluates before the first step if `evaluates`.

    Transformers 5.17 to 5.23, `TrainingArguments.eval_on_start`: it counts for a resumed run too.
    """
    return _while_called(args, eval_on_start=evaluates)


def keeps_all_checkpoints(args: Any) -> contextlib.ExitStack:
    """Inside, `Trainer` deletes no checkpoint when it saves one.

    Transformers 5.17 to 5.23, `TrainingArguments.save_total_limit`: it deletes before we have completed the new one.
    """
    return _while_called(args, save_total_limit=None)


def without_label_smoothing(trainer: "Trainer") -> contextlib.ExitStack:
    """Inside, the loss is that of the labels as they are.

    Transformers 5.17 to 5.23, `Trainer.label_smoother`: `prediction_step` smooths where training does.
    """
    return _while_called(trainer, label_smoother=None)


def generation_cache(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Inside, the config asks for the cache, without which a saved model would generate slowly.

    Transformers 5.17 to 5.23, `PreTrainedConfig.use_cache`: `Trainer` sets it to False and saves that.
    """
    config = getattr(model, "config", None)
    return _while_called(config, use_cache=True) if hasattr(config, "use_cache") else contextlib.nullcontext()


def saved_as(model: "nn.Module", model_class: type) -> contextlib.ExitStack:
    """Inside, a model is saved with the code of a class that its own was derived from.

    Transformers 5.17 to 5.23, `PreTrainedModel.save_pretrained`: it saves the code of `type(model)` and no other.
    """
    return _while_called(model, __class__=model_class)


def saved_whole(config: Any) -> contextlib.ExitStack:
    """Inside, the weights of a sharded model are saved as whole tensors that were gathered before.

    Transformers 5.17 to 5.23, `PreTrainedConfig.distributed_config`: `save_pretrained` gathers where it is set.
    """
    return _while_called(config, distributed_config=None)


# Accelerate, Datasets, Evaluate, PEFT, sacrebleu


def is_forward_of_accelerate(module: "nn.Module") -> bool:
    """Whether a module has a `forward` of its own since Accelerate put mixed precision around it.

    Accelerate 1.10 to 1.15, `_original_forward`, which `Accelerator.prepare_model` sets: nothing else tells of it.
    """
    return "_original_forward" in vars(module)


def set_sync_gradients(gradient_state: Any, value: bool) -> None:
    """Says whether a step of an optimizer takes effect, or gradients are still accumulated.

    Accelerate 1.10 to 1.15, `GradientState._set_sync_gradients`: `sync_gradients` can be read alone, and `accumulate`
    counts steps of the one model that is trained.
    """
    gradient_state._set_sync_gradients(value)


def data_fingerprint(dataset: Any) -> str:
    """What Datasets calls the content of a data set by.

    Datasets 4.0 to 5.2, `Dataset._fingerprint`: no public name gives it.
    """
    return dataset._fingerprint


def compute_unchecked(metric: Any, **inputs: Any) -> dict[str, Any]:
    """The values of an `evaluate` metric, without the checks and the table on disk of `compute`.

    evaluate 0.4.5 to 0.4.6, `Metric._compute`: `compute` writes its input to disk first, for each of many samples.
    """
    return metric._compute(**inputs)


def wrap_all_linear_targets(wrap: Callable[[Callable], Callable]) -> None:
    """Puts what `wrap` makes of it in the place of the function by which PEFT writes out `"all-linear"`, if it has one.

    PEFT 0.18 to 0.21, `_maybe_include_all_linear_layers`: PEFT has no table of what `"all-linear"` means in a model.
    """
    name = "_maybe_include_all_linear_layers"
    former = getattr(importlib.import_module("peft.tuners.tuners_utils"), name, None)
    wrapped = None if former is None else wrap(former)
    if wrapped is former:
        return
    # Some methods hold the function by its name in their own module.
    for path, module in list(sys.modules.items()):
        if path.startswith("peft.tuners.") and getattr(module, name, None) is former:
            setattr(module, name, wrapped)


def corpus_statistics(scorer: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Any:
    """Counts of each example, of which a metric of sacrebleu adds up those of a corpus.

    sacrebleu 2.4 to 2.6, `Metric._extract_corpus_statistics`: `corpus_score` gives the score of the whole corpus alone.
    """
    return scorer._extract_corpus_statistics(predictions, references)


def score_of_statistics(scorer: Any, statistics: list[int]) -> Any:
    """The score of a corpus with these counts in sum.

    sacrebleu 2.4 to 2.6, `Metric._compute_score_from_stats`: as above.
    """
    return scorer._compute_score_from_stats(statistics)
