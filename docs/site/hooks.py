"""What the site needs beyond its plugins: formulas without a script, and links that leave docs/."""

import html
import logging
import re
from pathlib import Path

import latex2mathml.converter


log = logging.getLogger("mkdocs.hooks.hf_gpt")

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)


def on_page_markdown(markdown, page, config, files):
    """Links to files of the repository outside docs/ become their paths: the site has no copy of them."""
    folder = Path(config.docs_dir, page.file.src_uri).parent

    def resolve(match: re.Match) -> str:
        label, target, _ = match.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(config.docs_dir) or not path.is_relative_to(ROOT):
            return match.group()
        if not path.exists():
            log.warning("%s: no file %s", page.file.src_uri, target)
        name = path.relative_to(ROOT).as_posix()
        return label if label.strip("`") in (name, path.name) else f"{label} (`{name}`)"

    return _LINK.sub(resolve, markdown)


def on_page_content(content, page, config, files):
    """Formulas become MathML, which browsers draw without a script."""

    def formula(match: re.Match) -> str:
        display = "block" if match.group(2) == "[" else "inline"
        return latex2mathml.converter.convert(html.unescape(match.group(3)).strip(), display=display)

    return _FORMULA.sub(formula, content)
