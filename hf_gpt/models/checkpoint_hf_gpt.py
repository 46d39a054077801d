"""Saving and loading that never lose a good checkpoint and say what is wrong with a bad one."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError


_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


class HfGptCheckpointMixin:
    """`save_pretrained` replaces files only once all are written; `from_pretrained` refuses weights that do not fit."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *model_args, **kwargs: Any
    ) -> "HfGptCheckpointMixin":
        """
        As [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            OSError: the safetensors file is damaged or cut off.
            ValueError: the checkpoint holds none of this model's weights. With `output_loading_info=True` the caller is
                told which are missing instead.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise OSError(
                f"The weights of {pretrained_model_name_or_path} are damaged or cut off ({error}). Copy or download "
                "the safetensors file again, or load an earlier checkpoint."
            ) from error
        if wants_info:
            return model, info
        backbone = {name for name, _ in model.named_parameters() if name.startswith(f"{model.base_model_prefix}.")}
        backbone = backbone or {name for name, _ in model.named_parameters()}
        if info["unexpected_keys"] and backbone <= set(info["missing_keys"]):
            found = ", ".join(sorted(info["unexpected_keys"])[:3])
            raise ValueError(
                f"{pretrained_model_name_or_path} holds no weight of {cls.__name__}, but others, such as {found}: it "
                "is a checkpoint of another architecture. Load it with AutoModel."
            )
        return model

    @classmethod
    def maybe_distribute_model(cls, model: Any, distributed_config: Any, mesh_manager: Any) -> Any:
        """
        As [`~transformers.PreTrainedModel.maybe_distribute_model`], which every way to load calls.

        Raises:
            ValueError: pipeline stages are asked for, and the model is not one stack of layers with a language-model
                head, which is all that the library cuts into stages.
        """
        stages = getattr(distributed_config, "pp_size", None) or 1
        if stages > 1 and not (cls._pp_plan and model.config.base_model_pp_plan):
            raise ValueError(
                f"pp_size={stages}: {cls.__name__} does not run in pipeline stages, HfGptForCausalLM alone does. Use "
                "tp_size or fsdp_size."
            )
        return super().maybe_distribute_model(model, distributed_config, mesh_manager)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs: Any) -> None:
        """
        As [`~transformers.PreTrainedModel.save_pretrained`]. Everything is written beside the old files first, and only
        then put in their place: interrupted, it leaves the old checkpoint whole. Where several processes save together
        or the files go on to the Hub, it is the library's own.
        """
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if is_distributed or kwargs.get("push_to_hub") or os.path.isfile(save_directory):
            super().save_pretrained(save_directory, *args, **kwargs)
            return
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=target) as staging:
            super().save_pretrained(staging, *args, **kwargs)
            _move_files(Path(staging), target)


def _move_files(source: Path, target: Path) -> None:
    written = sorted(path for path in source.rglob("*") if path.is_file())
    probe = source / ".permissions"
    probe.touch()
    for path in written:
        # Safetensors keeps its files from everybody but the owner, whatever the umask says.
        path.chmod(probe.stat().st_mode)
        # On disk before it has the final name, so that a power cut cannot leave an empty file under it.
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    for path in written:
        destination = target / path.relative_to(source)
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, destination)
    names = {path.name for path in written}
    if any(name.endswith(".safetensors") for name in names):
        for path in target.iterdir():
            if path.name not in names and re.fullmatch(
                r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", path.name
            ):
                path.unlink()


__all__ = ["HfGptCheckpointMixin"]
