"""The app in a browser, at the width of a phone and of a desktop: `make check-app`."""

import re
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.clients.records import record


gradio = pytest.importorskip("gradio", reason="make check-app installs it")
sync_api = pytest.importorskip("playwright.sync_api", reason="make check-app installs it")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def address(folders):
    from hf_gpt.app.page import launch_options, make_page
    from hf_gpt.app.sessions import Writer, open_judge
    from hf_gpt.evaluation.tasks.loading import open_candidate

    writers = {name: Writer(open_candidate(name, str(folders[name]), device="cpu")) for name in ("one", "two")}
    page = make_page(gradio, writers, open_judge(str(folders["discriminator"]), "cpu"))
    _, address, _ = page.launch(
        prevent_thread_lock=True, server_name="127.0.0.1", share=False, quiet=True, **launch_options(gradio)
    )
    yield address
    page.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(params=[(390, 844), (1280, 900)], ids=["phone", "desktop"])
def page(request, browser, address):
    """The page, of which it is checked afterwards that it complained of nothing and loaded nothing from elsewhere."""
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(120_000)
    complaints, elsewhere = [], []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: elsewhere.append(asked.url) if not _is_here(asked.url, address) else None)
    opened.goto(address)
    opened.get_by_role("tab", name="Write").wait_for()
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    opened.close()
    assert complaints == [] and elsewhere == []


def _is_here(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def test_writes_streams_and_colours(page, tmp_path):
    page.get_by_label("Prompt").first.fill("the man")
    page.get_by_label("Most new tokens").first.fill("20")
    page.get_by_role("button", name="Write", exact=True).click()
    page.locator(".verdict pre.tokens").first.wait_for()
    text = page.locator("#written textarea").input_value()
    assert text.startswith("the man") and len(text) > len("the man")
    assert re.search(r"\d+% real", page.locator(".verdict").first.inner_text())
    assert page.locator(".verdict span[style]").count() > 0
    page.screenshot(path=tmp_path / "write.png", full_page=True)


def test_guided(page):
    page.get_by_label("Prompt").first.fill("two dogs")
    page.get_by_label("Most new tokens").first.fill("8")
    page.get_by_label("Guided by the discriminator").first.click()
    page.get_by_role("option", name="best_of_n").click()
    page.get_by_role("button", name="Write", exact=True).click()
    page.locator(".verdict pre.tokens").first.wait_for()
    assert page.locator("#written textarea").input_value().startswith("two dogs")


def logit_of(folder, text):
    """What the discriminator says of a text with its begin and end."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = [begin, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    discriminator = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return discriminator(torch.tensor([ids])).logits.item()


def test_judges_a_pasted_text(page, folders, tmp_path, record_property):
    text = "a red bus <b>stands</b> by the street ."
    page.get_by_role("tab", name="Judge").click()
    page.get_by_label("Paste a text").fill(text)
    page.get_by_role("button", name="Judge").click()
    tokens = page.locator("pre.tokens:visible").first
    tokens.wait_for()
    assert tokens.inner_text() == text
    shown = re.search(r"\(logit ([+-][\d.]+)\)", page.locator("p:visible", has_text="% real").first.inner_text())[1]
    expected = logit_of(folders["discriminator"], text)
    assert float(shown) == pytest.approx(expected, abs=0.0051)
    compared = f"logit of a pasted text, {page.viewport_size['width']} pixels wide"
    metric = f"page {shown}, model {expected:+.4f}"
    record(record_property, "app (Gradio, Chromium)", "app", compared, metric, package="gradio")
    page.screenshot(path=tmp_path / "judge.png", full_page=True)


def test_compares_two_models(page, tmp_path):
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("Prompt").locator("visible=true").fill("the man")
    page.get_by_role("button", name="Write with both").click()
    page.locator("pre.tokens:visible").nth(1).wait_for()
    texts = page.get_by_label("Written").locator("visible=true")
    assert texts.count() == 2 and texts.nth(0).input_value() != texts.nth(1).input_value()
    page.screenshot(path=tmp_path / "compare.png", full_page=True)


def test_a_mistake_is_told_in_the_page(page):
    page.get_by_label("Most new tokens").first.fill("900")
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_text("but the model reads 192").wait_for()
