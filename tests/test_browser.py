"""Every page in a real browser: what a reader sees, and what a reader's network sees."""

import gzip
import itertools
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from visiting import LAPTOP, NAMES, PHONE, fits

# A page may cost this much on a first visit and on the next, compressed, mathematics apart.
FIRST_VISIT, NEXT_VISIT = 400_000, 60_000
# Ten runs as pictures of memory over time, each of hundreds of steps.
MANY_STEPS = {"what-to-do": 100_000}


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
        "intensity": 3,
        "roofline": 4,
        "training": 2,
        "published": 3,
        "what-to-do": 2,
        "more-cures": 2,
        "tiles": 4,
        "one-token": 5,
        "more-gpus": 4,
    }
    figures |= dict.fromkeys(("setup", "notation", "status"), 0)
    figures |= dict.fromkeys(("measurements-in-full", "published-in-full"), 0)
    figures |= dict.fromkeys(("glossary", "api", "bibliography", "explorer", "messages"), 0)
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


#: Leaves of an element its place alone.
EMPTY = """all => all
  .map(element => [element, element.getBoundingClientRect()])
  .forEach(([element, { width, height }]) => {
    element.replaceChildren();
    element.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
  })"""


def findings(page: Page, *without: str, rules: tuple[str, ...] = ()) -> list[str]:
    """What axe finds, in all rules or in some, where it does not look into what is ``without``.

    That is emptied: some rules compare each element with every one, left out or not, and half of a
    page's elements are parts of formulas.
    """
    for part in without:
        page.locator(part).evaluate_all(EMPTY)
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = Axe().run(page, {"exclude": [[part] for part in without]}, options).response
    return [f"{v['id']}: {node['html']}" for v in found["violations"] for node in v["nodes"]]


def test_axe_finds_nothing(seen):
    page = seen.page
    page.emulate_media(reduced_motion="reduce")  # a fold that fades in is pale at first
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    # Formulas are as dark as the text around them. Code is looked at in one colour here, and in its
    # own below.
    plain = "all => all.forEach(code => { code.textContent = code.textContent })"
    page.locator("div.highlight pre").evaluate_all(plain)
    assert findings(page, "mjx-container") == []
    page.emulate_media(color_scheme="dark")
    assert findings(page, "mjx-container", rules=("color-contrast",)) == []
    page.emulate_media(color_scheme="light")


@pytest.mark.parametrize("name", ["setup", "search", "reference/attnmem.programs"])
def test_axe_finds_nothing_in_code_and_where_sphinx_writes_the_page(visit, name):
    page = visit(name).page
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert findings(page) == []


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
    assert copied.splitlines()[2] == "q = [none, verb, noun, verb, noun, some]"
    assert copied.splitlines()[-1] == "q = 8 * q  # makes the differences clear"


def test_search_finds_a_chapter(visit):
    page = visit("search").page
    page.goto(page.url + "?q=softmax")
    # Results come one after the other.
    page.locator("ul.search li", has_text="Standard attention").first.wait_for()


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
    assert "The peak" in page.locator(".toc-tree").text_content()
    assert "Measurement" in page.locator("a.next-page").inner_text()
    assert "Standard attention" in page.locator("a.prev-page").inner_text()
