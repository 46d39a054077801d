"""The home page of the documentation in a browser: accessibility by axe-core. `make check-app`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


sync_api = pytest.importorskip("playwright.sync_api", reason="make check-app installs it")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make check-app installs it")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The page, built as `make docs` builds it."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(site)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    return (site / "index.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_the_home_page_is_accessible(home, size, scheme):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        viewport = {"width": size[0], "height": size[1]}
        page = browser.new_page(viewport=viewport, reduced_motion="reduce")
        page.goto(home)
        if scheme == "dark":
            page.evaluate("document.querySelector('[data-md-color-scheme=slate]').click()")
        page.wait_for_timeout(300)
        found = axe.Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in serious] == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        browser.close()
