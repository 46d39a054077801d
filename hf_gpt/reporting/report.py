"""One HTML page for one training run, complete in itself: metrics, curves, samples, settings and machine.

The page loads nothing, runs no script, and reads on a phone, on a desktop and on paper, in light and in dark.
A page is a list of `Section`s; a further kind of result is a function that returns one, handed to `write_report`.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gpt.files.atomic_files import write_text
from hf_gpt.reporting.alerts import NAMES, alert_rows, is_adversarial
from hf_gpt.reporting.chart import Chart, Line, describe, describe_line, format_number, tabulate, training_charts
from hf_gpt.reporting.plots import draw_chart, is_condensed, is_smoothed
from hf_gpt.reporting.style import STYLE
from hf_gpt.version import __version__


# How much of a sample, of a setting's value and of the settings stands open; the rest folds.
_SAMPLE_CHARACTERS = 1000
_SAMPLE_LINES = 18
_VALUE_CHARACTERS = 160
_SETTINGS_ROWS = 12
_NUMBERS_ROWS = 24

# The widths in pixels that a chart is drawn for; the style sheet shows the one that fits the reader's screen.
_LEAD_SIZES = {"wide": (880, 300), "medium": (600, 260), "narrow": (310, 240)}
_SIZES = {"wide": (480, 240), "narrow": (310, 210)}


@dataclass(frozen=True)
class Metric:
    """A headline metric, shown as a tile.

    Attributes:
        name: What it is.
        value: As it is shown.
        note: A line below.
        auc: Low end, value and high end of an AUC, drawn on a scale with a mark at chance.
    """

    name: str
    value: str
    note: str = ""
    auc: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Sample:
    """A prompt, what the model wrote after it, and how it was sampled (temperature, seed and the like)."""

    prompt: str
    text: str
    settings: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading; `body` is HTML, `id` an anchor unique in the page."""

    id: str
    title: str
    body: str


def write_report(
    path: Path,
    *,
    title: str,
    summary: str,
    metrics: Sequence[Metric],
    log_history: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    settings: Mapping[str, object],
    environment: Mapping[str, str],
    sections: Sequence[Section] = (),
    results: Sequence[Section] = (),
) -> Path:
    """Writes the report of a run to `path`, whole or not at all, and returns `path`.

    Args:
        path: The HTML file; its folder is made if need be.
        title: Heading of the page.
        summary: A few plain sentences; a blank line parts paragraphs.
        metrics: Headline metrics.
        log_history: `state.log_history` of a Trainer.
        samples: Prompts and continuations.
        settings: Settings by name, the most telling first; nested mappings are flattened.
        environment: Machine and versions, as `describe_environment` gives them.
        sections: Further parts, shown between the curves and the samples.
        results: Parts that the page begins with.
    """
    parts = [
        *results,
        curves_section(log_history),
        alerts_section(log_history),
        *sections,
        samples_section(samples),
        settings_section(settings),
        environment_section(environment),
    ]
    page = render_page(title, header(title, summary, metrics), [part for part in parts if part is not None])
    return write_text(Path(path), page)


def header(title: str, summary: str, metrics: Sequence[Metric], eyebrow: str = "Training report") -> str:
    """The top of the page: what it is, title, summary and headline metrics."""
    paragraphs = [part for part in re.split(r"\n\s*\n", summary.strip()) if part]
    tiles = "\n".join(
        f"<div><dt>{escape(metric.name)}</dt><dd>{escape(metric.value)}</dd>"
        + (f'<dd class="scale">{_auc_scale(*metric.auc)}</dd>' if metric.auc else "")
        + (f'<dd class="note">{escape(metric.note)}</dd>' if metric.note else "")
        + "</div>"
        for metric in metrics
    )
    columns = f"--few:{_per_row(len(metrics), 4)};--many:{_per_row(len(metrics), 6)}"
    return "\n".join(
        [
            f'<p class="eyebrow">{escape(eyebrow)}</p>',
            f"<h1>{escape(title)}</h1>",
            *(f'<p class="lead">{escape(part)}</p>' for part in paragraphs),
            f'<dl class="tiles" style="{columns}">\n{tiles}\n</dl>' if metrics else "",
        ]
    )


def _auc_scale(low: float, value: float, high: float) -> str:
    """An interval on a scale from 0 to 1, with a line at 0.5."""
    said = f"{value:.3f}, 95 % interval {low:.2f} to {high:.2f}, with a mark at 0.5"
    return (
        f'<svg class="auc" viewBox="0 0 100 14" role="img" aria-label="{said}"><title>{said}</title>'
        '<line class="rail" x1="0" x2="100" y1="7" y2="7"/><line class="chance" x1="50" x2="50" y1="1" y2="13"/>'
        f'<line class="interval" x1="{100 * low:.1f}" x2="{100 * high:.1f}" y1="7" y2="7"/>'
        f'<circle cx="{100 * value:.1f}" cy="7" r="2.6"/></svg>'
    )


def curves_section(log_history: Sequence[Mapping[str, Any]]) -> Section:
    """The run's curves, and the numbers behind them as a table."""
    charts = training_charts(log_history)
    if not charts:
        return Section("curves", "Curves", '<p class="muted">The run logged nothing to draw.</p>')
    others = len(charts) - 1
    # A single companion to the first chart would leave half a row empty, so it takes the full width too.
    body = "\n".join(chart_figure(chart, f"curve-{n}", lead=n == 0 or others == 1) for n, chart in enumerate(charts))
    grid = "charts thirds" if others == 3 else "charts"
    note = "The number beside a curve’s name is its last value."
    if any(is_condensed(chart, _SIZES["narrow"][0]) for chart in charts):
        note += " Where points crowd, the line is their mean and the band their range."
    if any(is_smoothed(chart, _SIZES["wide"][0]) for chart in charts):
        note += " Of many points the strong line is smoothed over a twentieth of them; the faint one is not."
    note += " Point at a chart, or step through it with the Tab key, to read its values."
    body = f'<div class="{grid}">\n{body}\n</div>\n<p class="muted after">{note}</p>'
    return Section("curves", "Curves", f"{body}\n{_numbers(log_history, charts)}")


def alerts_section(log_history: Sequence[Mapping[str, Any]]) -> Section | None:
    """Every warning that was raised, with its steps; None for a run that knows of no warnings."""
    if rows := alert_rows(log_history):
        return Section("alerts", "Warnings", results_table("Warnings", NAMES, rows, of_words=True))
    none = '<p class="muted">No warning was raised.</p>'
    return Section("alerts", "Warnings", none) if is_adversarial(log_history) else None


def chart_figure(chart: Chart, uid: str, *, lead: bool = False) -> str:
    """A chart with its key as a `<figure>`, drawn for a wide and for a narrow screen.

    Args:
        chart: What to draw.
        uid: Prefix for the ids in the drawings, unique in the page.
        lead: Whether the chart takes the full width of the page.
    """
    keys = "\n".join(_key(line, alone=line.label == chart.title) for line in chart.lines)
    if chart.logarithmic:
        keys = f"<li>logarithmic</li>\n{keys}"
    if chart.better is not None:
        keys = f"<li>{chart.better} is better</li>\n{keys}"
    lost = sum(len(line.points) - len(line.finite) for line in chart.lines)
    note = f'<p class="muted">Left out, as no finite number: {lost:,} value{"s" * (lost > 1)}.</p>' if lost else ""
    return (
        f'<figure class="chart{" lead-chart" if lead else ""}">\n<figcaption><h3>{escape(chart.title)}</h3>'
        f'<ul class="keys">{keys}</ul></figcaption>\n{_drawings(chart, uid, lead)}\n{note}</figure>'
    )


def samples_section(samples: Sequence[Sample]) -> Section | None:
    """What the model wrote, prompt and continuation told apart; None without samples."""
    if not samples:
        return None
    note = '<p class="muted">The prompt is <mark>marked</mark>; what follows it is the model’s own text.</p>'
    items = "\n".join(_sample(n, sample) for n, sample in enumerate(samples, 1))
    return Section("samples", "Samples", f"{note}\n{items}")


def table_section(uid: str, title: str, names: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Section:
    """A table of results under its own heading, as `results_table` has it."""
    table = results_table(title, names, rows)
    return Section(uid, title, table + (f'\n<p class="muted after">{escape(note)}</p>' if note else ""))


def results_table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], *, of_words: bool = False) -> str:
    """A table of results as HTML, which scrolls where it is too wide; the first cell of a row is its name.

    Args:
        title: What a screen reader calls it.
        names: Heads of the columns.
        rows: Its cells.
        of_words: Whether the cells are words, which go to the left, and not numbers.
    """
    heads = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in names)
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="Table: {escape(title)}" tabindex="0"><table'
        f' class="{"words" if of_words else "numbers"}">'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def side_by_side_section(uid: str, title: str, samples: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> Section:
    """Prompts, each with what several writers made of it: pairs of a name and a text."""
    parts = []
    for prompt, texts in samples:
        cards = "\n".join(
            f'<article class="sample"><header><h3>{escape(name)}</h3></header>\n<pre dir="auto">\n{escape(text)}</pre>'
            "</article>"
            for name, text in texts
        )
        asked = f'<pre dir="auto" class="after">\n<mark>{escape(prompt)}</mark></pre>\n' if prompt else ""
        parts.append(f'{asked}<div class="charts">\n{cards}\n</div>')
    return Section(uid, title, "\n".join(parts))


def settings_section(settings: Mapping[str, object]) -> Section | None:
    """The settings as a table, whose tail folds when it is long; None without settings."""
    rows = list(_flattened(settings))
    if not rows:
        return None
    if len(rows) <= _SETTINGS_ROWS + 2:
        return Section("settings", "Settings", _pairs("Settings", rows))
    first, rest = rows[:_SETTINGS_ROWS], rows[_SETTINGS_ROWS:]
    more = fold(f"{len(rest)} more settings", _pairs("Further settings", rest))
    return Section("settings", "Settings", f"{_pairs('Settings', first)}\n{more}")


def environment_section(environment: Mapping[str, str]) -> Section | None:
    """The machine and the versions as a table; None if nothing is known of them."""
    if not environment:
        return None
    return Section("environment", "Machine and versions", _pairs("Machine and versions", environment.items()))


def render_page(title: str, head: str, sections: Sequence[Section]) -> str:
    """The whole HTML document, from the top of the page and its sections."""
    links = "\n".join(f'<li><a href="#{escape(part.id)}">{escape(part.title)}</a></li>' for part in sections)
    nav = f'<nav aria-label="Sections"><ul>\n{links}\n</ul></nav>' if len(sections) > 1 else ""
    body = "\n".join(
        f'<section id="{escape(part.id)}" aria-labelledby="{escape(part.id)}-title">\n'
        f'<h2 id="{escape(part.id)}-title">{escape(part.title)}</h2>\n{part.body}\n</section>'
        for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
{head}
{nav}
</header>
<main>
{body}
</main>
<footer><p>Written by hf-gpt {escape(__version__)}. This page is complete in itself and loads nothing.</p></footer>
</body>
</html>
"""


def escape(text: object) -> str:
    """Any text as HTML: markup made harmless, and what no page may hold made visible."""
    visible = str(text).replace("\r\n", "\n").translate(_CONTROLS)
    return html.escape(re.sub("[\x80-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", visible))


def fold(summary: str, body: str) -> str:
    """HTML behind a line that opens it, without a script."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{body}\n</details>"


# Control characters as the symbols that Unicode has for them, except line feed and tab.
_CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}


def _per_row(count: int, most: int) -> int:
    """How many of `count` tiles go in a row that takes `most`, for rows of nearly the same length."""
    rows = -(-count // most)
    return -(-count // rows) if rows else 1


def _key(line: Line, alone: bool) -> str:
    """An entry of a chart's key: the line's name and its last value; a line that is alone needs no name."""
    last = f" <b>{format_number(line.finite[-1][1])}</b>" if line.finite else ""
    if alone:
        return f"<li>last{last}</li>" if last else ""
    return f'<li><i class="key series-{line.colour}" aria-hidden="true"></i>{escape(line.label)}{last}</li>'


def _drawings(chart: Chart, uid: str, lead: bool) -> str:
    if all(len(line.finite) < 2 for line in chart.lines):
        words = " ".join(describe_line(line, chart.x_label) for line in chart.lines)
        return f'<p class="muted">Too few values for a curve. {escape(words)}</p>'
    sizes = _LEAD_SIZES if lead else _SIZES
    try:
        drawn = {
            name: draw_chart(chart, uid=f"{uid}-{name}", width=width, height=height)
            for name, (width, height) in sizes.items()
        }
    except ImportError:
        # The end of a long run is no place to fail for want of a plotting library.
        return f'<p>{escape(describe(chart))}</p>\n<p class="muted">Install matplotlib to have the curve drawn.</p>'
    return "\n".join(f'<div class="{name}">{svg}</div>' for name, svg in drawn.items())


def _numbers(log_history: Sequence[Mapping[str, Any]], charts: Sequence[Chart]) -> str:
    """The charts' values at some two dozen steps, as a table that folds."""
    names, rows = tabulate(log_history, charts, _NUMBERS_ROWS)
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    steps = len({x for chart in charts for line in chart.lines for x, _ in line.points})
    table = (
        '<div class="scroll" role="region" aria-label="Numbers behind the curves" tabindex="0">'
        f'<table class="numbers"><caption>{len(rows)} of {steps:,} logged steps</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )
    return fold("The numbers behind the curves", table)


def _sample(number: int, sample: Sample) -> str:
    shown, rest = _split(sample.text)
    prompt = f"<mark>{escape(sample.prompt)}</mark>" if sample.prompt else ""
    # A line feed right after <pre> is not shown, so one of the parser's own goes before the sample's.
    parts = [f'<pre dir="auto">\n{prompt}{escape(shown)}</pre>']
    if rest:
        parts.append(fold(f"The remaining {len(rest):,} characters", f'<pre dir="auto">\n{escape(rest)}</pre>'))
    if not sample.text:
        parts.append('<p class="muted">The model wrote nothing.</p>')
    if not sample.prompt:
        parts.append('<p class="muted">Without a prompt.</p>')
    settings = f'<p class="muted">{escape(sample.settings)}</p>' if sample.settings else ""
    body = "\n".join(parts)
    return f'<article class="sample">\n<header><h3>Sample {number}</h3>{settings}</header>\n{body}\n</article>'


def _split(text: str) -> tuple[str, str]:
    """The part of a text that stands open and the part that folds, cut where a line or a word ends."""
    lines = text.splitlines(keepends=True)
    head = "".join(lines[:_SAMPLE_LINES])[:_SAMPLE_CHARACTERS]
    # Not worth a click.
    if len(text) - len(head) <= _SAMPLE_CHARACTERS // 5 and len(lines) <= _SAMPLE_LINES * 5 // 4:
        return text, ""
    ends = [match.end() for match in re.finditer(r"\s", head) if match.end() > len(head) * 2 // 3]
    cut = max(ends, default=len(head))
    return text[:cut], text[cut:]


def _flattened(settings: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _pairs(caption: str, rows: Iterable[tuple[str, object]]) -> str:
    """A table of names and values."""
    body = "\n".join(f'<tr><th scope="row">{_breakable(k)}</th><td>{_value(v)}</td></tr>' for k, v in rows)
    return (
        f'<table class="pairs"><caption class="unseen">{escape(caption)}</caption>\n<tbody>\n{body}\n</tbody></table>'
    )


def _breakable(name: str) -> str:
    """A name that a narrow column breaks between its words."""
    return re.sub(r"(?<=[a-zA-Z0-9])([_.])(?=[a-zA-Z])", r"\1<wbr>", escape(name))


def _value(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if len(text) > _VALUE_CHARACTERS:
        return fold(f"{text[:60].strip()} … ({len(text):,} characters)", f"<pre>\n{escape(text)}</pre>")
    return escape(text) or '<span class="muted">empty</span>'
