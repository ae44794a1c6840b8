"""A browser for all tests, and visits of pages in it."""

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PAGES
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
NAMES = [page.stem for page in PAGES]

LAPTOP, PHONE = ViewportSize(width=1280, height=720), ViewportSize(width=390, height=800)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def site(built_book: Path) -> Iterator[str]:
    """The address of the English edition; the Chinese one, where a test builds it, is beside it."""
    handler = functools.partial(Handler, directory=str(built_book.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/en"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing = f"no browser on the path: looked for {', '.join(BROWSERS)}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        # In a container Chromium runs as root, and its sandbox does not start there.
        options = [
            "--no-sandbox",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-gpu",  # there is none: a fifth of the time went into drawing for it
        ]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


def alone(browser: Browser, folder: Path, html: str) -> Iterator[Page]:
    """What an extension writes, alone in a file of the folder."""
    file = folder / "alone.html"
    file.write_text(f'<!doctype html><meta charset="utf-8">{html}', "utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        yield page


class Visit:
    """A page, loaded, with what went wrong and what came over the network."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(request.url))
        page.on("response", self._note_response)
        page.goto(address, wait_until="networkidle")
        if page.locator(".math").count():
            page.wait_for_selector("mjx-container")

    def _note_console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _note_response(self, response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Callable[..., Visit]]:
    """Loads a page as a reader who comes for the first time."""
    with contextlib.ExitStack() as contexts:

        def open_page(name: str, **options) -> Visit:
            context = contexts.enter_context(browser.new_context(**options))
            return Visit(context.new_page(), f"{site}/{name}.html")

        yield open_page


@pytest.fixture(scope="module", params=NAMES)
def seen(request, browser: Browser, site: str) -> Iterator[Visit]:
    """Each page, loaded once, in the light and on a laptop, for all tests that leave it so."""
    with browser.new_context(color_scheme="light", viewport=LAPTOP) as context:
        yield Visit(context.new_page(), f"{site}/{request.param}.html")


def fits(page: Page) -> bool:
    """Whether nothing of a page must be scrolled sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
