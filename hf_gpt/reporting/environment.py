"""The machine and the versions that a number was measured with."""

import os
import re
from pathlib import Path

from hf_gpt.version import __version__


def describe_environment() -> dict[str, str]:
    """The machine and the versions behind a run, as far as they can be told without naming host, user or folders."""
    import platform

    facts: dict[str, str | None] = {
        "hf-gpt": __version__,
        "hf-gpt commit": _commit(),
        "Python": platform.python_version(),
        "PyTorch": _version("torch"),
        "Transformers": _version("transformers"),
        "System": f"{platform.system()} {platform.machine()}".strip(),
        "Processor": _processor(),
        "Processor cores": _cores(),
        "Memory": _memory(),
    }
    return {name: fact for name, fact in {**facts, **_torch_facts()}.items() if fact}


def _torch_facts() -> dict[str, str | None]:
    """What only PyTorch knows: its threads and the accelerators it sees."""
    try:
        import torch
    except ImportError:
        return {}
    facts: dict[str, str | None] = {"Threads": str(torch.get_num_threads())}
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        names = [f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in found]
        facts["GPU"] = ", ".join(
            f"{count} × {name}" if (count := names.count(name)) > 1 else name for name in dict.fromkeys(names)
        )
        facts["GPU platform"] = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    elif torch.backends.mps.is_available():
        facts["GPU"] = "Apple GPU (MPS)"
    else:
        facts["GPU"] = "none"
    return facts


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    import platform

    try:
        listing = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or None
    named = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", listing, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or None


def _cores() -> str | None:
    total = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    if usable == total:
        return str(total) if total else None
    return f"{usable} of {total}"


def total_memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _memory() -> str | None:
    size = total_memory()
    return None if size is None else f"{size / 2**30:.1f} GiB"


def _commit() -> str | None:
    """The commit of this package's own checkout; None where it was installed, even inside another repository."""
    here = Path(__file__).resolve()
    git = ("git", "-C", str(here.parent))
    if not _output(*git, "ls-files", "--error-unmatch", here.name):
        return None
    commit = _output(*git, "rev-parse", "--short=12", "HEAD")
    changed = _output(*git, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with changes not committed" if commit and changed else commit


def _output(*command: str) -> str | None:
    """What a command prints, or None if it is missing, fails or hangs."""
    import subprocess

    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
