"""What the site needs beyond its plugins: formulas without a script, links that leave docs/, notebooks as pages."""

import html
import json
import logging
import re
from pathlib import Path

import latex2mathml.converter
from mkdocs.structure.files import File


log = logging.getLogger("mkdocs.hooks.hf_gpt")

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)


def on_files(files, config):
    """Each notebook is a page, with its outputs; converters of notebooks load scripts of other hosts."""
    for path in sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join(_cell(cell) for cell in cells) + f"\n\n[The notebook as a file]({path.name})\n"
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files


def _cell(cell: dict) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *map(_output, cell["outputs"])])


def _output(output: dict) -> str:
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if kind != "application/json"}
    if "image/png" in data:
        return f'<img alt="Plot of the cell above" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        # A blank line would end the block.
        return "<div>" + re.sub(r"\n\s*\n", "\n", data["text/html"]).strip() + "</div>"
    text = "".join(output.get("text", "")) or data.get("text/plain", "")
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def on_page_markdown(markdown, page, config, files):
    """Links to notebooks lead to their pages; those to files outside docs/, which the site lacks, become paths."""
    folder = Path(config.docs_dir, page.file.src_uri).parent

    def resolve(match: re.Match) -> str:
        label, target, anchor = match.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(config.docs_dir) or not path.is_relative_to(ROOT):
            is_page = path.suffix == ".ipynb" and path.parent != folder
            return f"[{label}]({target.removesuffix('.ipynb')}.md{anchor or ''})" if is_page else match.group()
        if not path.exists():
            log.warning("%s: no file %s", page.file.src_uri, target)
        name = path.relative_to(ROOT).as_posix()
        return label if label.strip("`") in (name, path.name) else f"{label} (`{name}`)"

    return _LINK.sub(resolve, markdown)


def on_page_content(content, page, config, files):
    """Formulas become MathML, which browsers show without a script."""

    def formula(match: re.Match) -> str:
        display = "block" if match.group(2) == "[" else "inline"
        return latex2mathml.converter.convert(html.unescape(match.group(3)).strip(), display=display)

    return _FORMULA.sub(formula, content)
