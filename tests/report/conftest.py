"""One headless browser for all tests of pages, where there is one."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's chromium, or the one that CXRFAST_TEST_CHROMIUM names."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("CXRFAST_TEST_CHROMIUM")
    chromium = named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine; apt-get install chromium, or set CXRFAST_TEST_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


class Visit:
    """A page that is open, what its console said and what it asked the network for."""

    def __init__(self, page):
        self.page = page
        self.console: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture
def visit(browser, tmp_path) -> Iterator[Callable[..., Visit]]:
    """visit(html, width=…, scripts=True) -> Visit"""
    contexts = []

    def call(html: str, *, width: int = 1280, height: int = 900, scripts: bool = True) -> Visit:
        path: Path = tmp_path / f"page-{len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height}, java_script_enabled=scripts, offline=True
        )
        contexts.append(context)
        found = Visit(context.new_page())
        found.page.goto(path.as_uri())
        return found

    yield call
    for context in contexts:
        context.close()
