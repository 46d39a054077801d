"""
`hf-gpt autoload`: other programs open our checkpoints although they never import hf_gpt.

No library of the ecosystem looks for plugins. A `.pth` file in the environment's packages is run whenever Python starts
there (https://docs.python.org/3/library/site.html); ours imports hf_gpt, which registers nothing until Transformers or
PEFT is imported and costs milliseconds. Nothing is switched on unless somebody asks for it here.
"""

import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hf_gpt.cli.command import REQUIRED, command, option
from hf_gpt.errors import UserError
from hf_gpt.files.atomic_files import write_text


FILE = "hf_gpt_autoload.pth"
# One line, as such files want it. An environment that no longer has the package starts as if the file were not there.
LINE = (
    "import os; exec(\"if os.environ.get('HF_GPT_AUTOLOAD') != '0':\\n try:\\n  import hf_gpt\\n"
    ' except Exception:\\n  pass")\n'
)


@dataclass(frozen=True, kw_only=True)
class AutoloadOptions:
    """The options of the command."""

    action: Literal["on", "off", "status"] = option(REQUIRED, "what to do", positional=True)


def autoload(args: AutoloadOptions) -> None:
    """Does `on`, `off` or `status`, and prints how it stands.

    Raises:
        UserError: the environment's packages cannot be changed.
    """
    path = Path(sysconfig.get_paths()["purelib"]) / FILE
    try:
        if args.action == "on":
            write_text(path, LINE)
        elif args.action == "off":
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be changed: {error.strerror}. Use an environment of your own (python -m venv)."
        ) from error
    print(f"autoload is {'on' if path.is_file() else 'off'}: {path}")


make_parser, main = command(
    "hf-gpt autoload",
    "Lets programs that never import hf_gpt, such as lm_eval, transformers serve, transformers chat or trl sft, open "
    "its checkpoints without remote code. It holds for the Python environment that this command runs in; "
    "HF_GPT_AUTOLOAD=0 switches it off for one program.",
    AutoloadOptions,
    autoload,
    examples=["on", "status"],
)
