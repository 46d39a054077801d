"""Runs each notebook of docs/notebooks and keeps it with its outputs beside its text: `make notebooks`."""

import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient


FOLDER = Path(__file__).parents[1] / "notebooks"


def without_stderr(notebook):
    """The notebook without what was written to standard error: progress bars, and paths of this machine."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main(run_in: str) -> None:
    """Runs all notebooks in a folder of their own, since they write to runs/."""
    Path(run_in).mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.py")):
        notebook = jupytext.read(path)
        NotebookClient(notebook, timeout=180, resources={"metadata": {"path": run_in}}).execute()
        jupytext.write(without_stderr(notebook), path.with_suffix(".ipynb"), fmt="ipynb")
        print(f"{path.stem}: done")


if __name__ == "__main__":
    main(sys.argv[1])
