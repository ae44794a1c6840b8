"""The Chinese edition as readers meet it: pages in a browser, downloads, ways to and fro."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import CHAPTERS, ROOT
from playwright.sync_api import Browser
from visiting import LAPTOP, NAMES, PHONE, Visit, fits

ENGLISH = re.compile(r"(?<![\w./#-])[a-z]{2,}(?![\w./#-])")
# What stays English: docstrings, entries of the bibliography, what other pages are called.
UNTRANSLATED = {"api", "bibliography", "genindex", "py-modindex", "search"}
READ = "p, li, h1, h2, h3, th, td, dt, dd, figcaption, summary, label, legend, caption, button"


@pytest.fixture(scope="module", params=NAMES)
def chinese(request, browser: Browser, site: str, in_chinese: Path) -> Iterator[Visit]:
    """Each page of the Chinese edition."""
    with browser.new_context(color_scheme="light", viewport=LAPTOP, locale="zh-CN") as context:
        address = f"{site.removesuffix('en')}zh/{request.param}.html"
        yield Visit(context.new_page(), address)


def test_a_chinese_page_loads_whole_and_has_the_language(chinese, site):
    page = chinese.page
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.locator(".math").count() == page.locator(".math mjx-container").count()
    assert page.locator("mjx-merror").count() == 0
    assert "Project-Id-Version" not in page.content()  # the head of a catalogue
    assert chinese.complaints == []
    here = site.removesuffix("en")
    assert [url for url in chinese.requests if not url.startswith((here, "data:"))] == []
    for size in (PHONE, LAPTOP):
        page.set_viewport_size(size)
        assert fits(page)


def test_no_english_sentence_is_left(chinese):
    """What no catalogue collects is found here."""
    name = Path(chinese.page.url).stem
    # In the explorer's tables, names of tensors are names, as in what a cell prints.
    own = """all => all.filter(e => !e.closest(
        "[data-show=alive], [data-show=terms], [data-show=timeline-table]"
    )).map(e => {
        const copy = e.cloneNode(true);
        copy.querySelectorAll("pre, code, script, mjx-container, .headerlink, ul, table")
            .forEach(part => part.remove());
        return copy.textContent.trim();
    })"""
    shown = chinese.page.locator("article").locator(READ).evaluate_all(own)
    left = [t for t in shown if len(ENGLISH.findall(t)) > 3 and not re.search("[一-鿿]", t)]
    assert left == [] or name in UNTRANSLATED


def test_a_page_and_a_section_lead_to_the_same_in_the_other_language(browser, site, in_chinese):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{site}/memory.html")
        there = page.locator("nav.languages a")
        assert (there.inner_text(), there.get_attribute("hreflang")) == ("简体中文", "zh-CN")
        alternates = page.locator("link[rel=alternate][hreflang]")
        assert alternates.evaluate_all("all => all.map(e => e.hreflang)") == ["en", "zh-CN"]
        title = page.locator("#memory-peak h2, h2#memory-peak").first
        title.hover()
        title.locator("a.other-language").click()
        assert page.url.endswith("/zh/memory.html#memory-peak")
        assert page.locator("html").get_attribute("lang") == "zh-CN"
        assert page.locator("#memory-peak").count() == 1
        page.locator("nav.languages a").click()
        assert page.url.endswith("/en/memory.html")


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("显存", "memory"),
        ("反向传播", "training"),
        ("标准注意力", "attention"),
        ("缓存分配器", "measurement"),
    ],
)
def test_search_finds_han_characters(visit, in_chinese, query, title):
    page = visit("../zh/search").page
    page.goto(f"{page.url}?q={query}")
    page.locator(f"ul.search li a[href*='{title}.html']").first.wait_for()
    page.goto(f"{page.url.partition('?')[0]}?q=鹅鹅鹅")
    page.locator("#search-results p.search-summary", has_text="。").wait_for()
    assert page.locator("ul.search li").count() == 0


def test_the_first_page_leads_to_a_reader_s_language(browser, built_book, in_chinese, site):
    shutil.copy(ROOT / "book" / "languages.html", built_book.parent / "index.html")
    for locale, folder in (("zh-TW", "zh"), ("de-DE", "en"), ("en-GB", "en")):
        with browser.new_context(locale=locale) as context:
            page = context.new_page()
            page.goto(site.removesuffix("en"))
            page.wait_for_url(f"**/{folder}/index.html")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chinese_notebook_has_the_code_of_the_english_one(built_book, in_chinese, name):
    english, chinese = (nbformat.read(p / f"{name}.ipynb", 4) for p in (built_book, in_chinese))
    code = [[c.source for c in book.cells if c.cell_type == "code"] for book in (english, chinese)]
    assert code[0] == code[1]
    text = "\n".join(c.source for c in chinese.cells if c.cell_type == "markdown")
    assert len(re.findall("[一-鿿]", text)) > 1000
    assert not re.search(r"\{[a-z:-]+\}`|^`{3,}\{", text, re.M)


def test_every_link_within_and_between_the_editions_has_a_page(built_book, in_chinese):
    for edition in (built_book, in_chinese):
        for page in edition.rglob("*.html"):
            links = re.findall(r'<(?:a|link)\b[^>]* href="([^"#:?]+)[^":]*"', page.read_text())
            missing = [link for link in {*links} if not (page.parent / link).exists()]
            assert missing == [], page
    reference = in_chinese / "api.html"
    assert 'href="../en/reference/attnmem.workload.html#' in reference.read_text()
    assert not (in_chinese / "reference").exists()
