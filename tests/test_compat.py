"""Private names of other libraries: each is still there, and stands in `hf_gpt.compat` alone."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from torch import nn

import hf_gpt
from hf_gpt import compat


# Names that functions of `compat` reach through a module or a class.
USED = {
    "torch": ("_foreach_lerp_",),
    "torch.cpu": ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_vnni_supported"),
    "torch.nn.Module": ("_get_name",),
    "torch.nn.modules.batchnorm": ("_NormBase",),
    "torch.nn.modules.conv": ("_ConvNd",),
    "torch.nn.modules.module": ("_global_forward_hooks", "_global_forward_pre_hooks"),
    "torch.nn.utils.parametrizations": ("_SpectralNorm",),
    "torch.ops.mkldnn": ("_is_mkldnn_bf16_supported", "_linear_pointwise", "_reorder_linear_weight"),
    "torch.optim._muon": ("_adjust_lr", "_zeropower_via_newtonschulz"),
    "transformers.AutoModelForSequenceClassification": ("_model_mapping",),
    "transformers.PreTrainedConfig": ("_attn_implementation", "_experts_implementation"),
    "transformers.PreTrainedModel": ("_fsdp_plan", "_no_split_modules", "_tp_plan"),
    "transformers.Trainer": ("_prepare_inputs",),
    "transformers.generation.GenerationMixin": (
        "_extract_generation_mode_kwargs",
        "_sample",
        "_update_model_kwargs_for_generation",
    ),
    "accelerate.state.GradientState": ("_set_sync_gradients",),
    "evaluate.Metric": ("_compute",),
    "peft.tuners.tuners_utils": ("_maybe_include_all_linear_layers",),
    "sacrebleu.metrics.base.Metric": ("_compute_score_from_stats", "_extract_corpus_statistics"),
}

# Names that they read or set on objects, by the class or function that gives objects these names.
ON_OBJECTS = {
    "torch.compile": ("_orig_mod",),
    "torch.nn.Module": ("_forward_hooks", "_forward_pre_hooks"),
    "torch.optim.lr_scheduler.LambdaLR": ("_last_lr",),
    "transformers.PreTrainedConfig": ("_name_or_path",),
    "transformers.Trainer": ("_globalstep_last_logged", "_tr_loss", "_train_batch_size"),
    "transformers.generation.GenerationMixin": ("_eos_token_tensor", "_is_user_defined", "_pad_token_tensor"),
    "transformers.generation.PrefixConstrainedLogitsProcessor": ("_prefix_allowed_tokens_fn",),
    "accelerate.Accelerator": ("_original_forward",),
    "datasets.Dataset": ("_fingerprint",),
}

# Names that classes of ours define in place of a library's, which therefore stand where those classes do.
OVERRIDDEN = {
    "torch.optim.Muon": ("_init_group",),
    "transformers.Trainer": (
        "_finalize_training",
        "_get_dataloader",
        "_get_eval_sampler",
        "_get_grad_norm",
        "_get_output_dir",
        "_get_train_sampler",
        "_init_training_state",
        "_issue_warnings_after_load",
        "_load_best_model",
        "_load_callback_state",
        "_load_from_checkpoint",
        "_load_optimizer_and_scheduler",
        "_load_rng_state",
        "_load_scaler",
        "_maybe_log_save_evaluate",
        "_prepare_for_training",
        "_run_epoch",
        "_save",
        "_save_checkpoint",
        "_save_optimizer_and_scheduler",
    ),
    "accelerate.ParallelismConfig": ("_validate_accelerator",),
    "evaluate.Metric": ("_compute", "_info"),
}

# Names that a library looks for in classes of ours that are not derived from its own.
LOOKED_FOR = {
    "accelerate.FullyShardedDataParallelPlugin": ("_no_split_modules",),
    "transformers.HfArgumentParser": ("_argument_group_name",),
}

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "peft", "sacrebleu", "tokenizers")
# Of Python's own library: ctypes, argparse, named tuples.
OF_PYTHON = {"_CFuncPtr", "_actions", "_handle", "_negative_number_matcher", "_option_string_actions", "_replace"}
# What only a run with several devices or mixed precision gives objects is looked for in the source.
BY_SOURCE = {"accelerate.Accelerator": "prepare_model"}
OWN_CLASSES = (
    "hf_gpt.adversarial.resuming.ResumableAdversarialTrainer",
    "hf_gpt.adversarial.trainer.AdversarialTrainer",
    "hf_gpt.evaluation.metric._Described",
    "hf_gpt.evaluation.metric.FeatureMetric",
    "hf_gpt.evaluation.metric.SampleMetric",
    "hf_gpt.evaluation.metric.TokenMetric",
    "hf_gpt.training.distributed.sharding.CpuParallelismConfig",
    "hf_gpt.training.optim.muon.Muon",
    "hf_gpt.training.distributed.sharded_trainer.ShardedTrainer",
    "hf_gpt.training.resumption.resumable.ResumableTrainer",
    "hf_gpt.training.resumption.staged.StagedTrainer",
    "hf_gpt.training.tasks.trainer.TaskTrainer",
    "hf_gpt.training.trainer.HfGptTrainer",
)


def pairs(*tables: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return sorted({(position, name) for table in tables for position, names in table.items() for name in names})


def find(position: str) -> Any:
    """What a dotted path names: a module, or something in one."""
    found, path = None, ""
    for part in position.split("."):
        path = f"{path}.{part}".lstrip(".")
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
    return found


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x, labels):
        return {"loss": (self.layer(x) - labels).square().mean()}


def trained(folder: Path) -> transformers.Trainer:
    options = {"max_steps": 1, "use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True}
    rows = [{"x": [1.0], "labels": [2.0]}] * 8
    trainer = transformers.Trainer(Line(), transformers.TrainingArguments(str(folder), **options), train_dataset=rows)
    trainer.train()
    return trainer


def generating() -> list[Any]:
    """The configuration that `generate` hands to a decoding method, and a cache that it was given."""
    sizes = {"vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = hf_gpt.HfGptForCausalLM(hf_gpt.HfGptConfig(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    seen = []

    def method(model, input_ids, generation_config, **others):
        seen.extend([generation_config, others["past_key_values"]])
        return input_ids

    model.generate(
        torch.tensor([[1, 3]]), max_new_tokens=1, custom_generate=method, past_key_values=transformers.DynamicCache()
    )
    return seen


@lru_cache
def objects(position: str, folder: Path) -> list[Any]:
    """Objects of a place of `ON_OBJECTS`; one of them has each of its names."""
    if position == "torch.optim.lr_scheduler.LambdaLR":
        return [torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1), lambda step: 1.0)]
    if position == "transformers.Trainer":
        return [trained(folder)]
    if position == "transformers.generation.GenerationMixin":
        return generating()
    if position == "transformers.generation.PrefixConstrainedLogitsProcessor":
        return [find(position)(lambda row, ids: [1], 1)]
    if position == "datasets.Dataset":
        return [datasets.Dataset.from_dict({"text": ["a"]})]
    return [torch.compile(nn.Linear(1, 1)) if position == "torch.compile" else find(position)()]


@pytest.mark.parametrize(("position", "name"), pairs(USED, OVERRIDDEN))
def test_the_name_is_there(position: str, name: str):
    if position == "torch.ops.mkldnn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    assert hasattr(find(position), name), f"{position}.{name} is gone"


@pytest.mark.parametrize(("position", "name"), pairs(ON_OBJECTS))
def test_objects_have_the_name(position: str, name: str, tmp_path_factory):
    if position in BY_SOURCE:
        assert f".{name} = " in inspect.getsource(getattr(find(position), BY_SOURCE[position])), (
            f"{position} sets no {name}"
        )
    else:
        folder = tmp_path_factory.getbasetemp()
        assert any(hasattr(one, name) for one in objects(position, folder)), f"{position} gives objects no {name}"


@pytest.mark.parametrize(("position", "name"), pairs(LOOKED_FOR))
def test_a_library_looks_for_the_name(position: str, name: str):
    assert f'"{name}"' in inspect.getsource(find(position)), f"{position} looks for no {name}"


def test_what_our_classes_override_is_listed():
    found = set()
    for position in OWN_CLASSES:
        own = find(position)
        for base in own.__mro__:
            if base.__module__.partition(".")[0] in LIBRARIES:
                names = {name for name in vars(own) if is_private(name) and not name.startswith("_abc_")}
                found |= {name for name in names if name in vars(base)}
    assert found == {name for _, name in pairs(OVERRIDDEN)}


def test_functions_and_lists_name_the_same():
    """A name that `compat` uses is listed, and one that is listed is used."""
    tree = ast.parse((ROOT / "hf_gpt/compat.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    used = {name for function in functions for name, *_ in private_uses(function)}
    used |= {*compat.PRIVATE_CONFIG_FIELDS, *compat.GENERATION_METHODS}
    modules = {part for position in USED for part in position.split(".") if is_private(part)}
    assert used == {name for _, name in pairs(USED, ON_OBJECTS)} | modules
    reason = r"^(torch|Transformers|Accelerate|Datasets|evaluate|PEFT|sacrebleu) [\d.]+ to [\d.]+, `"
    for function in functions:
        assert re.search(reason, ast.get_docstring(function), re.MULTILINE), function.name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(tree: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """Private names in code, each with its node and what stands before the dot; of a string that is one, nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr, node, ast.unparse(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if is_private(node.value) and node.value.isidentifier():
                yield node.value, node, ""
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            for name in {*node.module.split("."), *(alias.name for alias in node.names)}:
                if is_private(name):
                    yield name, node, node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in LIBRARIES:
                    yield from ((name, node, alias.name) for name in alias.name.split(".") if is_private(name))


def own_names(trees: list[ast.AST]) -> set[str]:
    """Private names that our code defines: functions, methods, classes, attributes of `self`, fields of classes."""
    found = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) == "self"
            ):
                found.add(node.attr)
            if isinstance(node, ast.ClassDef):
                targets = [target for item in node.body for target in getattr(item, "targets", [])]
                targets += [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if is_private(name)}


def test_no_other_module_uses_a_private_name_of_a_library():
    paths = [path for path in sorted((ROOT / "hf_gpt").rglob("*.py")) if path != ROOT / "hf_gpt/compat.py"]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    own = own_names(list(trees.values())) | OF_PYTHON
    listed = {name for _, name in pairs(USED, ON_OBJECTS)}
    wrong = []
    for path, tree in trees.items():
        # Models travel with a checkpoint, without `hf_gpt.compat`.
        if path.parent == ROOT / "hf_gpt/models":
            continue
        for name, node, before in private_uses(tree):
            is_import = isinstance(node, (ast.Import, ast.ImportFrom))
            of_object = isinstance(node, ast.Attribute) and before not in ("self", "cls")
            unknown = isinstance(node, ast.Attribute) and name not in own and not name.startswith("_hf_gpt_")
            # Another's object, and a name that we listed as another's.
            foreign = name in listed and (of_object or isinstance(node, ast.Constant))
            if is_import or unknown or foreign:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {before}.{name}")
    assert not wrong, "these belong into hf_gpt/compat.py: " + ", ".join(wrong)
