import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hf_gpt.reporting import chart, environment, plots, report
from hf_gpt.reporting.alerts import alert_rows
from hf_gpt.reporting.environment import describe_environment
from hf_gpt.reporting.report import Metric, Sample, Section, write_report


VOID = {"meta", "link", "br", "wbr", "img", "hr", "input"}
HOSTILE = "</pre></details></style><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'"


class Page(HTMLParser):
    """Reads a page, holds it to balanced tags, and keeps what the tests ask about."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.ids, self.texts = [], [], [], [], {}
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def _note(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def all_of(self, tag: str) -> str:
        return "".join(self.texts.get(tag, []))


def history(steps: int = 60, evaluate_every: int = 10) -> list[dict]:
    entries = []
    for step in range(1, steps + 1):
        loss = 1.5 + 4 * math.exp(-step / steps * 8) + 0.05 * math.sin(step)
        entries.append(
            {
                "loss": loss,
                "grad_norm": 1 + 0.3 * math.cos(step),
                "learning_rate": 3e-4 * (1 - step / steps),
                "tokens_per_second": 12000 + step % 7,
                "epoch": step / steps,
                "step": step,
            }
        )
        if evaluate_every and step % evaluate_every == 0:
            measured = {"eval_loss": loss + 0.1, "eval_bits_per_byte": loss / 3, "eval_runtime": 1.0}
            entries.append({**measured, "epoch": step / steps, "step": step})
    entries.append({"train_runtime": 3.0, "train_loss": 2.0, "step": steps, "epoch": 1.0})
    return entries


def write(folder: Path, **changes) -> str:
    arguments = {
        "title": "A run",
        "summary": "It ran.\n\nIt ended.",
        "metrics": [Metric("Loss", "1.5", "at the end")],
        "log_history": history(),
        "samples": [Sample("Once", " upon a time", "greedy")],
        "settings": {"learning_rate": 3e-4, "lora": {"r": 8}},
        "environment": {"Python": "3"},
    }
    path = folder / "report.html"
    assert write_report(path, **{**arguments, **changes}) == path
    return path.read_text(encoding="utf-8")


def assert_self_contained(source: str, page: Page) -> None:
    assert "script" not in page.tags
    assert "@import" not in page.all_of("style")
    assert not re.search(r"url\((?!#)", source)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith(("#", "data:")), (tag, name, value)


def test_page_is_well_formed_and_loads_nothing(tmp_path):
    source = write(tmp_path)
    page = Page(source)
    assert_self_contained(source, page)
    assert "://" not in source
    assert len(page.ids) == len(set(page.ids))
    pointed_at = re.findall(r'(?:href="|url\()#([^")]+)', source)
    assert pointed_at and set(pointed_at) <= set(page.ids)
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labels) == page.tags.count("svg") and all(labels)
    assert [tag for tag in page.tags if re.fullmatch("h[12]", tag)] == ["h1", "h2", "h2", "h2", "h2"]
    assert "lora.r" in re.sub("<wbr>", "", source)


def test_every_text_is_escaped(tmp_path):
    source = write(
        tmp_path,
        title=HOSTILE,
        summary=HOSTILE,
        metrics=[Metric(HOSTILE, HOSTILE, HOSTILE)],
        log_history=[*history(), {"step": 70, f"eval_{HOSTILE}_loss": 2.0}],
        samples=[Sample(HOSTILE, HOSTILE * 40, HOSTILE)],
        settings={HOSTILE: HOSTILE, "long": HOSTILE * 40, "nested": {HOSTILE: [HOSTILE]}},
        environment={HOSTILE: HOSTILE},
    )
    page = Page(source)
    assert_self_contained(source, page)
    assert "img" not in page.tags
    assert page.all_of("title") == HOSTILE
    assert page.all_of("mark") == f"marked{HOSTILE}"


def test_sample_keeps_its_whitespace(tmp_path):
    text = "\n\n  two  spaces\n\tand a tab \n"
    source = write(tmp_path, samples=[Sample("", text)])
    assert f'<pre dir="auto">\n{text}</pre>' in source


def test_what_no_page_may_hold_is_made_visible(tmp_path):
    source = write(tmp_path, samples=[Sample("a\x00b", "c\x1b[0m \ud800\x85\uffff\r\nd\re")])
    assert "a␀b" in source and "c␛[0m ���\nd␍e" in source


def test_long_sample_folds_without_losing_a_character(tmp_path):
    text = "".join(f"word {n}{' ' if n % 9 else chr(10)}" for n in range(900))
    page = Page(write(tmp_path, samples=[Sample("", text)], settings={}))
    # Every <pre> opens with a line feed that no browser shows.
    shown, rest = report._split(text)
    assert shown and rest and page.all_of("pre") == f"\n{shown}\n{rest}"
    assert shown + rest == text and shown[-1].isspace()
    assert "details" in page.tags
    assert any("remaining" in summary for summary in page.texts["summary"])


def test_one_long_line_folds_too():
    shown, rest = report._split("x" * 5000)
    assert 0 < len(shown) <= 1000 and shown + rest == "x" * 5000
    assert report._split("short\n" * 4) == ("short\n" * 4, "")


def test_many_and_long_settings_fold(tmp_path):
    source = write(tmp_path, settings={**{f"setting_{n}": n for n in range(90)}, "template": "t" * 900, "none": ""})
    page = Page(source)
    assert "80 more settings" in source and "(900 characters)" in source
    assert all(re.search(rf"setting_<wbr>?{n}<|setting_{n}<", source) for n in range(90))
    assert page.tags.count("details") == 3


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"step": 1, "loss": 2.0, "epoch": 0.1}],
        [{"step": 1, "loss": math.nan}],
        [{"step": n, "loss": math.nan if n % 3 else 2.0, "grad_norm": math.inf} for n in range(30)],
        [{"step": n, "loss": 10.0 ** (n * 30), "grad_norm": -1.0} for n in range(11)],
        [{"step": n, "loss": 2.0, "learning_rate": 0.0} for n in range(5)],
        [{"step": 5, "loss": "2.5"}, {"step": 6, "loss": None}, {"loss": 1.0}, {"step": 7, "loss": "lost"}],
        [{"step": 4, "eval_loss": 1.0}, {"step": 2, "eval_loss": 2.0}, {"step": 4, "eval_loss": 1.5}],
        [{"step": 1e9 + n, "eval_books_loss": 1.0 + n, "eval_code_loss": 2.0} for n in range(3)],
        history(2, evaluate_every=0),
    ],
)
@pytest.mark.filterwarnings("error")
def test_unusual_histories(tmp_path, entries):
    source = write(tmp_path, log_history=entries)
    assert_self_contained(source, Page(source))
    assert not re.search(r'\b(?:d|x|y)="[^"]*(?:nan|inf)', source)


def test_history_without_evaluation_has_no_evaluation_curve(tmp_path):
    assert "Evaluation" not in write(tmp_path, log_history=history(evaluate_every=0))
    assert "Bits per byte, evaluation" in write(tmp_path)


def test_values_that_are_not_finite_leave_a_gap_and_a_note(tmp_path):
    entries = history(evaluate_every=0)
    for entry in entries[20:25]:
        entry["loss"] = math.nan
    source = write(tmp_path, log_history=entries)
    assert "no finite number: 5 values" in source
    loss = chart.training_charts(entries)[0]
    svg = plots.draw_chart(loss, uid="u", width=400, height=200)
    curve = re.search(r'<path d="(M [^"]*)" clip-path[^>]*var\(--series-0\)', svg)
    assert curve and curve[1].count("M") == 2


def test_last_of_two_values_for_a_step_counts():
    entries = [{"step": 4, "eval_loss": 1.0}, {"step": 2, "eval_loss": 2.0}, {"step": 4, "eval_loss": 1.5}]
    assert chart.series(entries, "eval_loss") == [(2.0, 2.0), (4.0, 1.5)]


def test_spike_turns_the_axis_logarithmic():
    line = chart.Line("Gradient norm", [(n, 500.0 if n == 7 else 1.0) for n in range(20)])
    assert chart.Chart("Gradient norm", [line]).logarithmic
    assert not chart.Chart("Loss", [chart.Line("Training", [(0, 5.0), (1, 2.0), (2, 0.0)])]).logarithmic


def test_condensed_curve_keeps_its_extremes():
    values = [(float(n), 9.0 if n == 777 else 1.0) for n in range(2000)]
    groups = plots._groups(values, 125)
    assert sum(map(len, groups)) == 2000 and max(y for group in groups for _, y in group) == 9.0
    assert plots.is_condensed(chart.Chart("Loss", [chart.Line("Training", values)]), 310)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (2000, "2,000"),
        (1.23456, "1.235"),
        (3e-5, "3e-5"),
        (0.0003, "0.0003"),
        (2e20, "2e20"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_for_a_reader(value, shown):
    assert chart.format_number(value) == shown


def test_size_stays_modest_and_two_writings_agree(tmp_path):
    first = write(tmp_path, log_history=history(2000, evaluate_every=20))
    assert len(first.encode()) < 250_000
    assert write(tmp_path, log_history=history(2000, evaluate_every=20)) == first


def test_drawings_carry_no_colour_font_or_style_of_their_own(tmp_path):
    svgs = "".join(re.findall(r"<svg.*?</svg>", write(tmp_path), re.DOTALL))
    assert svgs and not re.search(r"#[0-9a-f]{6}\b|font-family|<style|<metadata|xmlns", svgs)


def test_callers_plotting_settings_neither_matter_nor_change(tmp_path):
    import matplotlib

    expected = write(tmp_path)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert write(tmp_path) == expected
        assert matplotlib.rcParams["axes.facecolor"] == "red"


def test_report_without_matplotlib_tells_the_curves_in_words(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    source = write(tmp_path)
    assert "Install matplotlib" in source and "Training: from" in source and "<svg" not in source


def test_further_sections_stand_after_the_curves(tmp_path):
    source = write(tmp_path, sections=[Section("discriminator", "Critic & co", "<p>It judged.</p>")])
    order = [source.index(f'<section id="{name}"') for name in ("curves", "discriminator", "samples", "settings")]
    assert order == sorted(order) and "Critic &amp; co</h2>" in source and "<p>It judged.</p>" in source
    Page(source)


def test_failed_write_leaves_the_old_report_and_no_draft(tmp_path, monkeypatch):
    write(tmp_path, title="The old one")

    def fail(*_):
        raise OSError("no space left")

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
            patch.setattr(os, call, fail)
            write(tmp_path, title="The new one")
        assert "The old one" in (tmp_path / "report.html").read_text()
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_new_report_replaces_the_old_in_a_folder_made_for_it(tmp_path):
    folder = tmp_path / "a" / "b"
    write(folder, title="The old one")
    assert "The new one" in write(folder, title="The new one")
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_environment_names_versions_but_no_host_user_or_folder():
    import getpass
    import platform

    facts = describe_environment()
    assert {"hf-gpt", "Python", "PyTorch", "Transformers", "Processor cores"} <= set(facts)
    assert all(isinstance(value, str) and value for value in facts.values())
    told = " ".join(facts.values())
    private = [platform.node(), str(Path.home()), os.getcwd()]
    private += [getpass.getuser()] if len(getpass.getuser()) > 4 else []
    assert not [name for name in private if name and len(name) > 1 and name in told]
    assert not re.search(r"(?:^|\s)/\w", told)


def test_commit_is_told_only_of_the_packages_own_checkout(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    installed = tmp_path / "lib" / "environment.py"
    installed.parent.mkdir()
    installed.write_text("")

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(("git", *identity, *arguments), cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(environment, "__file__", str(installed))
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    assert environment._commit() is None
    git("add", ".")
    git("commit", "-m", "second")
    assert re.fullmatch("[0-9a-f]{12}", environment._commit())
    installed.write_text("changed")
    assert environment._commit().endswith(", with changes not committed")


def test_import_is_cheap():
    code = (
        "import sys, hf_gpt.reporting.report; "
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_browser_shows_the_page_without_complaint(tmp_path, width):
    """A frame of the wanted width stands in for a phone, as the browser's own window does not get that narrow."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    samples = [Sample("x" * 300, "y" * 3000), Sample(HOSTILE, HOSTILE)]
    write(tmp_path, log_history=history(2000), samples=samples, settings={"k" * 200: "v" * 150})
    # The probe in the frame's parent reports overflow; the page under test forbids scripts in itself.
    probe = "const d=f.contentDocument.documentElement;document.title=d.scrollWidth>d.clientWidth?'overflows':'fits'"
    style = f"border:0;width:{width}px;height:3000px"
    frame = f'<iframe id="f" src="report.html" style="{style}" onload="{probe}"></iframe>'
    (tmp_path / "frame.html").write_text(f'<body style="margin:0">{frame}')
    shot = tmp_path / "shot.png"
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--allow-file-access-from-files", "--enable-logging=stderr"),
    ]
    command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={max(width, 500)},3000"]
    address = (tmp_path / "frame.html").as_uri()
    seen = subprocess.run([*command, f"--screenshot={shot}", address], capture_output=True, text=True, timeout=120)
    assert shot.stat().st_size > 10_000
    assert "CONSOLE" not in seen.stderr
    dom = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert "<title>fits</title>" in dom.stdout


def test_the_loss_of_the_game_is_no_part_of_the_curve_of_likelihood():
    log = [{"step": 1, "loss": 6.0, "phase": "likelihood"}, {"step": 2, "loss": -0.5, "phase": "adversarial"}]
    charts = {chart.title: chart for chart in chart.training_charts([*log, {"step": 2, "eval_loss": 5.5}])}
    assert [line.points for line in charts["Loss"].lines] == [[(1.0, 6.0)], [(2.0, 5.5)]]
    assert charts["Adversarial loss of the generator"].lines[0].points == [(2.0, -0.5)]


def test_warnings_of_a_log_are_shown_with_their_steps():
    alerts = [
        {"step": step, "alert": "forgetting", "alert_value": 0.06, "alert_threshold": 0.05, "alert_advice": "raise it"}
        for step in range(2, 20, 2)
    ]
    rows = alert_rows(
        [{"step": 1, "loss": 1.0}, *alerts, {"step": 1, "alert": "<b>", "alert_value": 1, "alert_threshold": 2}]
    )
    assert rows[0] == ["forgetting", "2, 4, 6, 8, … 18 (9 times)", "0.06", "0.05", "Raise it."]
    assert (
        "&lt;b&gt;" in report.alerts_section([{"alert": "<b>", "step": 1, "alert_value": 1, "alert_threshold": 2}]).body
    )
    assert (
        "No warning" in report.alerts_section([{"step": 1, "warnings": 0}]).body
        and report.alerts_section([{"loss": 1}]) is None
    )


def test_values_show_where_the_reader_points_or_tabs_to(tmp_path):
    page = write(tmp_path, log_history=history(30, evaluate_every=10))
    tips = re.findall(r'<g class="tip".*?</g>', page, flags=re.DOTALL)
    assert tips and "<script" not in page
    first = next(tip for tip in tips if "step 1<" in tip)
    assert "Training " in first and 'tabindex="0"' in first and "aria-label=" in first
    # Eight stops of a chart, and its last step, for each of the widths that it is drawn for.
    lead = page[page.index('id="curves"') :].split("</figure>")[0]
    drawings = re.findall(r'<svg role="group".*?</svg>', lead, flags=re.DOTALL)
    assert len(drawings) == 3 and all(1 < drawing.count("tabindex") <= 9 for drawing in drawings)
    assert all('<g aria-hidden="true">' in drawing for drawing in drawings)


def test_many_points_are_smoothed_beside_the_raw_line():
    points = [(float(x), float(x % 2)) for x in range(100)]
    found = plots.smoothed(points)
    assert [x for x, _ in found] == [x for x, _ in points] and found[0] == points[0] and found[-1] == points[-1]
    # Of five points around, two or three are 1.
    assert all(0.35 < y < 0.65 for _, y in found[2:-2])
    assert plots.is_smoothed(chart.Chart("Loss", [chart.Line("Training", points)]), 480)
    assert not plots.is_smoothed(chart.Chart("Loss", [chart.Line("Training", points[:40])]), 480)


def test_charts_say_which_direction_is_better(tmp_path):
    page = write(tmp_path, log_history=history(10, evaluate_every=5))
    assert page.count("lower is better") == 2 and page.count("higher is better") == 1


def test_an_auc_has_its_interval_and_a_mark_at_chance(tmp_path):
    page = write(tmp_path, metrics=[Metric("MLE", "0.566", "C2ST AUC", (0.52, 0.566, 0.62))])
    assert "0.566, 95 % interval 0.52 to 0.62, with a mark at 0.5" in page
    assert '<line class="chance" x1="50" x2="50"' in page and '<line class="interval" x1="52.0" x2="62.0"' in page
