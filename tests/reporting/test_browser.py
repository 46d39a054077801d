"""Reports in a browser: accessibility by axe-core, values by keyboard, phone and desk. `make check-app`."""

import shutil

import pytest

from hf_gpt.cli.evaluation.page import write_page
from hf_gpt.reporting.report import Metric, Sample, side_by_side_section, table_section, write_report
from hf_gpt.training.tasks.class_report import class_sections


sync_api = pytest.importorskip("playwright.sync_api", reason="make check-app installs it")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make check-app installs it")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def log() -> list[dict]:
    """The log of an adversarial run with evaluations."""
    entries = []
    for step in range(1, 61):
        phase = "adversarial" if step > 20 else "likelihood"
        pair = {"d_loss": 0.7, "d_auc_heldout": 0.5 + step / 200, "d_updates": step, "generator_updates": step // 2}
        entries.append({"step": step, "loss": 3 - step / 60, "learning_rate": 1e-3, "phase": phase, **pair})
        if step % 20 == 0:
            entries.append({"step": step, "eval_loss": 2.9 - step / 60, "eval_fresh_auc": 0.7})
    return entries


def write_run(folder):
    """A report with metrics on a scale, tables, classes, curves and samples."""
    classes = class_sections(["a", "b"], ["a", "b", "a"], ["a", "a", "b"], [0.9, 0.8, 0.7], ["x", "y", "z"])
    shown = [("ROMEO:", [("MLE", "what light"), ("real text", "but soft")])]
    table = table_section("comparison", "Comparison", ["", "AUC"], [["MLE", "0.6"]], "A note.")
    return write_report(
        folder / "report.html",
        title="A run",
        summary="It ran.",
        metrics=[Metric("MLE", "0.600", "C2ST AUC", (0.5, 0.6, 0.7))],
        log_history=log(),
        samples=[Sample("Once", " upon a time" * 200, "greedy")],
        settings={f"setting_{number}": number for number in range(40)},
        environment={"Python": "3"},
        results=[table, *classes, side_by_side_section("side-by-side", "Samples side by side", shown)],
    )


def write_evaluation(folder):
    """The page of an evaluation of two models."""
    rows = [
        {"task": "sst2", "model": model, "metric": "accuracy", "value": value, "low": value - 0.1, "high": value + 0.1}
        for model, value in (("first", 0.7), ("second", 0.8))
    ]
    difference = {"difference": -0.1, "low": -0.2, "high": 0.1, "p_value": 0.3, "p_adjusted": 0.3}
    results = {
        "models": [{"name": name, "path": name} for name in ("first", "second")],
        "tasks": {"sst2": {"description": "sentiment"}},
        "settings": {"seeds": [0]},
        "results": [{**row, "interval": "bootstrap", "items": 100, "seeds": 1} for row in rows],
        "comparisons": [{"task": "sst2", "metric": "accuracy", "first": "first", "second": "second", **difference}],
        "samples": [{"task": "sst2", "prompt": "A film.", "texts": {"first": "good", "second": "bad"}}],
        "environment": {"Python": "3"},
    }
    return write_page(folder, results)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=["phone", "desk"])
@pytest.mark.parametrize("write", [write_run, write_evaluation])
def test_pages_are_accessible_and_fit(write, size, scheme, browser, tmp_path):
    # The policy of the page allows no script, that of the checker included.
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce"
    )
    page, elsewhere = context.new_page(), []
    page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith(("file:", "data:")) else 0)
    page.goto(write(tmp_path).as_uri())
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert elsewhere == []
    context.close()


def test_the_keyboard_reads_values(browser, tmp_path):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(write_run(tmp_path).as_uri())
    stop = page.locator("#curves .wide .tip[tabindex]").nth(2)
    text = stop.locator("text")
    assert text.evaluate("node => getComputedStyle(node).visibility") == "hidden"
    stop.focus()
    assert text.evaluate("node => getComputedStyle(node).visibility") == "visible"
    assert "step" in text.text_content() and stop.get_attribute("aria-label").startswith("step")
    page.close()
