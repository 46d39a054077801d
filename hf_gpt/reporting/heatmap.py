"""Texts whose tokens are coloured by what a discriminator makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_gpt.reporting.report import Section, escape


_MORE, _LESS = "var(--series-0)", "var(--series-1)"
# The strongest ground of a token, in percent: with more its text is hard to read on a dark page.
_STRENGTH = 45


def heatmap_section(uid: str, title: str, texts: Sequence[tuple[str, Mapping[str, Any]]]) -> Section:
    """Texts with tokens in colour: blue where the discriminator's logit rises, orange where it falls.

    Args:
        uid: Anchor, unique in the page.
        title: Heading.
        texts: A name, and what `score_texts(..., per_token=True)` says of a text.
    """
    largest = largest_change([text for _, text in texts])
    cards = "\n".join(_card(name, text, largest) for name, text in texts)
    key = (
        f'<p class="muted">{legend()} '
        "The number is the logit of the whole text and the probability that it is real.</p>"
    )
    return Section(uid, title, f"{key}\n{cards}")


def legend() -> str:
    """What the colours mean, as HTML."""
    keys = " ".join(
        f'<span style="background:{_ground(colour, 40)};color:var(--ink);padding:.1em .3em">{words}</span>'
        for colour, words in ((_MORE, "more real"), (_LESS, "less real"))
    )
    return f"{keys} A token is coloured by how far the discriminator’s logit moves when it reads it."


def largest_change(texts: Sequence[Mapping[str, Any]]) -> float:
    """How far the logit moves at most at a token of the texts; 1 where it never does."""
    return max((abs(token["change"]) for text in texts for token in text_tokens(text)), default=0.0) or 1.0


def text_tokens(text: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The tokens of a text, without those that begin and end it."""
    # At the first token the logit moves there from nothing.
    tokens = text["tokens"][1:]
    return tokens if text.get("truncated") else tokens[:-1]


def coloured(tokens: Sequence[Mapping[str, Any]], largest: float) -> str:
    """Tokens as HTML, each on a ground whose strength says how far the logit moves; `largest` is full strength."""
    parts = []
    for token in tokens:
        share = min(1.0, abs(token["change"]) / largest)
        text = escape(token["token"])
        if share < 0.03 or not text.strip():
            parts.append(text)
            continue
        ground = _ground(_MORE if token["change"] > 0 else _LESS, round(_STRENGTH * share))
        # Colour alone says nothing to a reader who cannot see it or to a printer without any.
        parts.append(f'<span title="{token["change"]:+.2f}" style="background:{ground}">{text}</span>')
    return "".join(parts)


def _ground(colour: str, percent: int) -> str:
    return f"color-mix(in srgb,{colour} {percent}%,transparent)"


def _card(name: str, text: Mapping[str, Any], largest: float) -> str:
    body = coloured(text_tokens(text), largest)
    return (
        f'<article class="sample"><header><h3>{escape(name)}</h3><p class="muted">logit {text["logit"]:+.2f}, real '
        f'{text["probability"]:.0%}</p></header>\n<pre dir="auto">\n{body}</pre></article>'
    )
