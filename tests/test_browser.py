"""Every page in a real browser: what a reader sees, and what a reader's network sees."""

import contextlib
import functools
import gzip
import http.server
import itertools
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

# A page may cost this much on a first visit and on the next, compressed, mathematics apart.
FIRST_VISIT, NEXT_VISIT = 400_000, 60_000
# Ten runs as pictures of memory over time, each of hundreds of steps.
MANY_STEPS = {"what-to-do": 100_000}


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def site(built_book: Path) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(built_book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
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
        ]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


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


def test_a_page_loads_whole_and_from_here_alone(seen, site):
    page = seen.page
    # All mathematics is typeset, and nothing in it is an error.
    assert page.locator(".math").count() == page.locator(".math mjx-container").count()
    assert page.locator("mjx-merror").count() == 0
    # Neither the page nor its code and output must be scrolled sideways on a laptop, as on a phone.
    cut = "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert fits(page)
        assert page.locator("article pre").evaluate_all(cut) == []
    assert seen.complaints == []
    foreign = [url for url in seen.requests if not url.startswith((site, "data:"))]
    assert foreign == []


def test_figures_are_visible_and_described(seen):
    page, name = seen.page, Path(seen.page.url).stem
    for image in page.locator("article img").all():
        assert len(image.get_attribute("alt") or "") > 60, image.get_attribute("src")
        assert image.evaluate("i => i.complete && i.naturalWidth > 0")
        assert image.bounding_box()["width"] > 300
    figures = {
        "attention": 3,
        "memory": 4,
        "intensity": 2,
        "roofline": 4,
        "training": 2,
        "published": 2,
        "what-to-do": 3,
        "tiles": 4,
        "one-token": 4,
    }
    figures |= dict.fromkeys(("setup", "measurement", "notation", "status"), 0)
    figures |= dict.fromkeys(("measurements-in-full", "published-in-full"), 0)
    figures |= dict.fromkeys(("glossary", "api", "bibliography"), 0)
    assert page.locator("article figure img").count() == figures.get(name, 1)


def test_a_phone_shows_the_page_without_sideways_scrolling(seen):
    seen.page.set_viewport_size(PHONE)
    assert fits(seen.page)
    seen.page.set_viewport_size(LAPTOP)


def test_a_page_is_light(seen, site, built_book):
    files = {url.removeprefix(site).partition("?")[0] for url in seen.requests}
    size = {
        file: len(gzip.compress((built_book / file.lstrip("/")).read_bytes()))
        for file in files
        if "/mathjax/" not in file and not file.startswith("data:")
    }
    assert sum(size.values()) <= FIRST_VISIT
    # The next page needs again what not every page asks for by its name.
    pages = [(built_book / f"{name}.html").read_text() for name in NAMES]
    own = [
        size[file]
        for file in size
        if file.endswith(".html") or not all(Path(file).name in page for page in pages)
    ]
    assert 0 < sum(own) <= MANY_STEPS.get(Path(seen.page.url).stem, NEXT_VISIT)


def test_a_listing_s_number_and_caption_do_not_touch(visit):
    caption = visit("memory").page.locator(".code-block-caption").first
    number = caption.locator(".caption-number")
    assert number.evaluate("e => getComputedStyle(e).whiteSpace").startswith("pre")
    assert number.text_content().endswith(" ")


@pytest.mark.parametrize(
    "module", ["programs", "prediction.trace", "prediction.kernels.reductions"]
)
def test_the_reference_reads_on_a_laptop_and_on_a_phone(visit, module):
    seen = visit(f"reference/attnmem.{module}")
    for size in (LAPTOP, PHONE):
        seen.page.set_viewport_size(size)
        assert fits(seen.page)
    assert seen.complaints == []


def test_a_note_stands_beside_the_text_or_folds_into_it(visit):
    page = visit("roofline", viewport={"width": 1280, "height": 900}).page
    assert page.locator(".strip").inner_text().split()[1] == "minutes"
    notes = page.locator("details.margin")
    assert notes.count() > 3
    assert notes.evaluate_all("all => all.every(note => note.open)")
    boxes = [note.bounding_box() for note in notes.all()]
    right = max(
        box["x"] + box["width"]
        for text in page.locator("article section > p").all()
        if (box := text.bounding_box())
    )
    assert all(box["x"] >= right for box in boxes if box)
    pairs = itertools.pairwise(boxes)
    assert all(above["y"] + above["height"] <= below["y"] for above, below in pairs)

    phone = visit("roofline", viewport={"width": 390, "height": 844}).page
    note = phone.locator("details.margin").first
    content = note.locator("p:not(.admonition-title)").first
    assert not content.is_visible()
    note.locator("summary").press("Enter")
    assert content.is_visible()


def test_copy_buttons_copy_exactly_the_input(visit):
    page = visit("attention", permissions=["clipboard-read", "clipboard-write"]).page
    inputs = page.locator("div.cell_input div.highlight")
    assert inputs.count() == page.locator("button.copybtn").count() > 5
    button = inputs.nth(1).locator("button.copybtn")
    inputs.nth(1).hover()
    button.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines()[1] == "q = [none, verb, noun, verb, noun, some]"
    assert copied.splitlines()[-1] == "q = 8 * q  # ask loudly"


def test_search_finds_a_chapter(visit):
    page = visit("search").page
    page.goto(page.url + "?q=softmax")
    page.wait_for_selector("ul.search li")
    assert "Standard attention" in page.locator("ul.search").inner_text()


def test_dark_mode_can_be_chosen(visit):
    seen = visit("memory", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    before = seen.page.evaluate(background)
    seen.page.locator("button.theme-toggle:visible").first.click()
    dark = seen.page.evaluate(background)
    assert dark != before
    seen.page.reload(wait_until="networkidle")  # and the page stays dark, and whole
    assert seen.page.evaluate(background) == dark
    assert seen.complaints == []


def test_pages_have_a_sidebar_contents_and_neighbours(visit):
    page = visit("memory").page
    assert page.locator(".sidebar-tree a").all_inner_texts()[:3] == [
        "Setup",
        "1. Standard attention",
        "2. Memory",
    ]
    assert "The peak" in page.locator(".toc-tree").inner_text()
    assert "Measurement" in page.locator("a.next-page").inner_text()
    assert "Standard attention" in page.locator("a.prev-page").inner_text()
