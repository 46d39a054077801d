"""The app in a browser, at the width of a phone and of a desk, in the light and in the dark: `make check-app`.

With `HF_GPT_SCREENSHOTS=docs/images` it takes the screenshots of the documentation, of the models of `make demo`.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.clients.records import record


gradio = pytest.importorskip("gradio", reason="make check-app installs it")
sync_api = pytest.importorskip("playwright.sync_api", reason="make check-app installs it")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make check-app installs it")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
PHONE, DESK = (390, 844), (1280, 900)
DEMO = Path("runs/demo")


def serve(models, discriminator):
    """A page as the command serves it: its `Blocks` and its address."""
    from starlette.middleware import Middleware

    from hf_gpt.app.examples import example_prompts
    from hf_gpt.app.hosts import HostCheck
    from hf_gpt.app.judge import open_judge
    from hf_gpt.app.page import make_page
    from hf_gpt.app.sessions import Writer
    from hf_gpt.app.style import launch_options
    from hf_gpt.evaluation.tasks.loading import open_candidate

    writers = {
        name: Writer(open_candidate(name, str(path), device="cpu"), example_prompts(str(path), False))
        for name, path in models.items()
    }
    page = make_page(gradio, writers, open_judge(str(discriminator), "cpu"))
    _, address, _ = page.launch(
        prevent_thread_lock=True,
        server_name="127.0.0.1",
        share=False,
        quiet=True,
        app_kwargs={"middleware": [Middleware(HostCheck)]},
        **launch_options(gradio),
    )
    return page, address


@pytest.fixture(scope="module")
def address(folders):
    page, address = serve({name: folders[name] for name in ("one", "two")}, folders["discriminator"])
    yield address
    page.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def open_page(browser, address, size, scheme):
    """The page, ready."""
    viewport = {"width": size[0], "height": size[1]}
    opened = browser.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    opened.set_default_timeout(60_000)
    opened.goto(address)
    opened.get_by_role("tab", name="Write").wait_for()
    return opened


@pytest.fixture(params=[(PHONE, "dark"), (DESK, "light")], ids=["phone", "desk"])
def page(request, browser, address, capfd):
    """The page, of which it is checked that neither it nor the terminal complained, and that it loaded nothing else."""
    opened = open_page(browser, address, *request.param)
    complaints, elsewhere = [], []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: elsewhere.append(asked.url) if not is_here(asked.url, address) else None)
    opened.reload()
    opened.get_by_role("tab", name="Write").wait_for()
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    opened.close()
    assert complaints == [] and elsewhere == []
    assert "Traceback" not in "".join(capfd.readouterr())


def is_here(url, address):
    return url.startswith((address, "data:", "blob:"))


def show(page, tab):
    page.get_by_role("tab", name=tab).click()


def length(page):
    return page.get_by_label("Most new tokens").locator("visible=true").first


def press(page, name):
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def written(page):
    return page.locator("#written textarea").input_value()


def test_writes_streams_and_colours(page):
    page.get_by_label("Prompt").first.fill("the man")
    length(page).fill("20")
    press(page, "Write")
    page.locator(".verdict pre.tokens").first.wait_for()
    text = written(page)
    assert text.startswith("the man") and len(text) > len("the man")
    verdict = page.locator(".verdict").first.inner_text()
    assert re.search(r"(Looks real|Looks generated|Cannot tell)\..*\d+% real", verdict)
    assert "AUC on unseen texts 0.80 (95 % interval 0.75 to 0.85" in verdict and "less real" in verdict
    assert page.locator(".verdict pre span[style]").count() > 0


def test_an_example_is_written_on_and_its_seed_gives_it_again(page):
    page.get_by_role("button", name="Once upon a time").click()
    page.locator(".verdict pre.tokens").first.wait_for()
    text, status = written(page), page.locator(".status").first.inner_text()
    seed = re.search(r"Seed (\d+)", status)[1]
    assert text.startswith("Once upon a time") and page.get_by_label("Temperature").first.input_value() == "0.8"
    press(page, "Write")
    page.wait_for_function(f"!document.querySelector('.status').innerText.includes('Seed {seed}')")
    page.locator(".verdict pre.tokens").first.wait_for()
    assert written(page) != text
    page.get_by_label("Seed").first.fill(seed)
    press(page, "Write")
    page.wait_for_function(f"document.querySelector('.status').innerText.includes('Seed {seed},')")
    assert written(page) == text


def test_a_seed_is_kept_by_its_button(page):
    length(page).fill("3")
    press(page, "Write")
    press(page, "Use this seed again")
    page.wait_for_function("document.querySelector('.status').innerText.includes('Seed')")
    seed = re.search(r"Seed (\d+)", page.locator(".status").first.inner_text())[1]
    sync_api.expect(page.get_by_label("Seed").first).to_have_value(seed)


def test_guided(page):
    page.get_by_label("Prompt").first.fill("two dogs")
    length(page).fill("8")
    page.get_by_label("Guided by the discriminator").first.click()
    page.get_by_role("option", name="best_of_n").click()
    press(page, "Write")
    page.locator(".verdict pre.tokens").first.wait_for()
    assert written(page).startswith("two dogs")


def logit_of(folder, text):
    """What the discriminator says of a text with its begin and end."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = [begin, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    discriminator = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return discriminator(torch.tensor([ids])).logits.item()


def test_judges_a_pasted_text(page, folders, record_property):
    text = "a red bus <b>stands</b> by the street ."
    show(page, "Judge")
    page.get_by_label("Paste a text").fill(text)
    press(page, "Judge")
    tokens = page.locator("pre.tokens:visible").first
    tokens.wait_for()
    assert tokens.inner_text() == text
    shown = re.search(r"\(logit ([+-][\d.]+)\)", page.locator("p:visible", has_text="% real").first.inner_text())[1]
    expected = logit_of(folders["discriminator"], text)
    assert float(shown) == pytest.approx(expected, abs=0.0051)
    compared = f"logit of a pasted text, {page.viewport_size['width']} pixels wide"
    metric = f"page {shown}, model {expected:+.4f}"
    record(record_property, "app (Gradio, Chromium)", "app", compared, metric, package="gradio")


def test_compares_two_models(page):
    show(page, "Compare")
    page.get_by_label("Prompt").locator("visible=true").fill("the man")
    press(page, "Write with both")
    page.locator("pre.tokens:visible").nth(1).wait_for()
    texts = page.get_by_label("Written by").locator("visible=true")
    assert texts.count() == 2 and texts.nth(0).input_value() != texts.nth(1).input_value()


@pytest.fixture
def slow(monkeypatch):
    """Models that take their time."""
    import time

    from hf_gpt.app.stopping import StopCheck

    check = StopCheck.__call__
    monkeypatch.setattr(StopCheck, "__call__", lambda *args: time.sleep(0.1) or check(*args))


def writing():
    """How many threads write."""
    import threading

    from hf_gpt.app.sessions import Writer

    targets = [getattr(thread, "_target", None) for thread in threading.enumerate()]
    return [getattr(target, "__func__", None) for target in targets].count(Writer._generate)


@pytest.mark.parametrize(("tab", "button"), [("Write", "Write"), ("Compare", "Write with both")])
def test_stop_ends_the_writing(page, slow, tab, button):
    show(page, tab)
    length(page).fill("150")
    press(page, button)
    page.locator(".status:visible", has_text="tokens ...").first.wait_for()
    press(page, "Stop")
    page.locator(".status:visible", has_text="Stopped. Seed").first.wait_for()
    page.wait_for_timeout(300)
    assert writing() == 0


def test_leaving_the_page_ends_the_writing(browser, address, slow):
    import time

    page = open_page(browser, address, DESK, "light")
    length(page).fill("190")
    press(page, "Write")
    page.locator(".status:visible", has_text="tokens ...").first.wait_for()
    assert writing() == 1
    page.close()
    began = time.monotonic()
    while writing() and time.monotonic() - began < 15:
        time.sleep(0.1)
    # All 190 tokens would take 19 s.
    assert writing() == 0


def test_nothing_to_stop_is_said(page):
    for tab in ("Write", "Judge", "Compare"):
        show(page, tab)
        press(page, "Stop")
        page.locator(":is(.status, .verdict):visible", has_text="There is nothing to stop.").first.wait_for()


def test_a_length_is_bounded_by_what_the_prompt_leaves(page):
    sync_api.expect(length(page)).to_have_attribute("max", "191")
    page.get_by_label("Prompt").first.fill("the man runs near a red bus . " * 8)
    sync_api.expect(length(page)).not_to_have_attribute("max", "191")
    assert int(length(page).get_attribute("max")) < 150
    page.get_by_label("Prompt").first.fill("the man runs near a red bus . " * 80)
    press(page, "Write")
    page.get_by_text("but one reads 192, new ones included. Shorten it.").wait_for()


def test_mistakes_are_told_in_the_page(page):
    page.get_by_label("Seed").first.fill("a seed")
    press(page, "Write")
    page.get_by_text("Seed must be a whole number").wait_for()
    show(page, "Judge")
    press(page, "Judge")
    page.get_by_text("There is no text to judge.").wait_for()
    page.get_by_label("Paste a text").fill("a" * 20_001)
    press(page, "Judge")
    page.get_by_text("20,001 characters; at most 20,000 are read").wait_for()


def call(address, name, *values):
    """The last event of a call by the API, as text. JSON with NaN, which clients refuse to send, is sent too."""
    import httpx

    url, headers = f"{address}gradio_api/call/{name}", {"Content-Type": "application/json"}
    answer = httpx.post(url, content=json.dumps({"data": values}), headers=headers)
    if answer.status_code != 200:
        return f"status {answer.status_code}: {answer.text}"
    return httpx.get(f"{url}/{answer.json()['event_id']}", timeout=60).text.strip().rpartition("\n\n")[2]


def test_odd_calls_are_answered_without_a_traceback(address, capfd):
    good = ["one", "the man", 5, "1", 0.8, 1, 0, 0, 1, "none", 8]
    written = call(address, "write", *good)
    assert written.startswith("event: complete") and "Seed 1," in written and "% real" in written
    nan, endless = float("nan"), float("inf")
    odd = [(0, "none of them"), (2, nan), (2, 10**9), (4, nan), (4, endless), (4, -3), (4, "x"), (4, None), (10, [1])]
    for position, value in [*odd, (1, {}), (1, "\ud83d"), (3, "x"), (3, nan), (9, "all")]:
        values = [*good]
        values[position] = value
        answer = call(address, "write", *values)
        told = r"alert|greater|less|between|not in the list|Could not preprocess|Seed 1,"
        assert re.search(told, answer), (position, value, answer)
    assert "Traceback" not in call(address, "write", "one")
    for text in (None, 5, ["x"], endless, "\ud83d", "a" * 100_000):
        assert re.search(r"alert|% real", call(address, "judge", text)), text
    assert "Traceback" not in "".join(capfd.readouterr())


def test_another_site_gets_nothing(address):
    import httpx

    asked = {"data": ["the man"]}
    url = f"{address}gradio_api/call/judge"
    assert httpx.post(url, json=asked).status_code == 200
    assert httpx.post(url, json=asked, headers={"Origin": "https://evil.example"}).status_code == 403
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_is_accessible_and_fits(browser, address, size, scheme):
    page = open_page(browser, address, size, scheme)
    press(page, "Write")
    page.locator(".verdict pre.tokens").first.wait_for()
    if size == PHONE:
        boxes = [page.locator("#written").bounding_box(), length(page).bounding_box()]
        assert boxes[0]["y"] < boxes[1]["y"]
    for tab in ("Write", "Judge", "Compare"):
        show(page, tab)
        page.wait_for_timeout(300)
        found = axe.Axe().run(page).response
        assert "color-contrast" in {each["id"] for each in found["passes"]}
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_screenshots_of_the_documentation(browser, size, scheme):
    folder = os.environ.get("HF_GPT_SCREENSHOTS")
    if not folder:
        pytest.skip("HF_GPT_SCREENSHOTS=docs/images takes them, of the models of make demo")
    served, address = serve({"MLE": DEMO / "model", "adversarial": DEMO / "adversarial"}, DEMO / "discriminator")
    page = open_page(browser, address, size, scheme)
    page.get_by_label("Seed").first.fill("7")
    page.get_by_role("button", name="First Citizen:").click()
    page.locator(".verdict pre.tokens").first.wait_for()
    page.wait_for_timeout(500)
    width = size[0]
    page.screenshot(path=f"{folder}/app_write_{width}_{scheme}.png", full_page=True)
    show(page, "Compare")
    page.get_by_label("Prompt").locator("visible=true").fill("ROMEO:\n")
    page.get_by_label("Seed").locator("visible=true").fill("7")
    length(page).fill("60")
    press(page, "Write with both")
    page.locator("pre.tokens:visible").nth(1).wait_for()
    page.wait_for_timeout(500)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=f"{folder}/app_compare_{width}_{scheme}.png", full_page=True)
    page.close()
    served.close()
