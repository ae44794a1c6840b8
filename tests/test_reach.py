"""Readers with a keyboard, readers who asked for rest, and readers on paper."""

import pytest
from playwright.sync_api import Page, ViewportSize
from visiting import PHONE, fits


def tab_stops(page: Page) -> list[str]:
    """What the Tab key stops at, once around: how each begins in HTML."""
    stops: list[str] = []
    while len(stops) < 2000:
        page.keyboard.press("Tab")
        stop = page.evaluate("document.activeElement.outerHTML.slice(0, 90)")
        if stop.startswith("<body"):
            break
        stops.append(stop)
    return stops


def test_the_keyboard_reaches_everything_on_a_phone_and_nothing_that_is_hidden(visit):
    page = visit("intensity", viewport=PHONE).page
    stops = tab_stops(page)
    assert "skip-to-content" in stops[0]
    boxes = page.locator("article :is(pre, div.output, div.table-wrapper, div.math-wrapper)")
    scroll = "all => all.map(e => e.checkVisibility() && e.scrollWidth > e.clientWidth)"
    wide = boxes.evaluate_all(scroll)
    assert wide == boxes.evaluate_all("all => all.map(e => e.hasAttribute('tabindex'))")
    stopped = sum(
        s.startswith(("<pre", '<div class="output', '<div class="table', '<div class="math'))
        for s in stops
    )
    assert 0 < sum(wide) == stopped
    folds = page.locator("article details > summary").count()
    assert 0 < folds == sum(stop.startswith("<summary") for stop in stops)
    assert not any("sidebar-search" in stop or "toctree" in stop for stop in stops)
    assert not any("mjx-container" in stop for stop in stops)  # nobody stops at 90 formulas


@pytest.mark.parametrize(
    ("switch", "drawer"), [("navigation", ".sidebar-drawer"), ("toc", ".toc-drawer")]
)
def test_the_keyboard_opens_a_sidebar_and_closes_it(visit, switch, drawer):
    page = visit("memory", viewport=PHONE).page
    icon = page.locator(f".mobile-header label[for=__{switch}] .icon")
    links = page.locator(f"{drawer} a:visible")
    assert links.count() == 0
    icon.press("Enter")
    assert icon.get_attribute("aria-expanded") == "true"
    assert links.first.evaluate("e => e === document.activeElement")
    links.first.press("Escape")
    assert icon.evaluate("e => e === document.activeElement")
    assert links.count() == 0
    icon.click()  # and a finger still can
    links.first.wait_for()
    assert icon.get_attribute("aria-expanded") == "true"


def test_nothing_moves_for_those_who_asked_for_that(visit):
    page = visit("memory", reduced_motion="reduce").page
    moving = "all => all.filter(e => getComputedStyle(e).transitionDuration != '0s').length"
    assert page.locator("*").evaluate_all(moving) == 0
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.locator("html").get_attribute("lang") == "en"


A4 = ViewportSize(width=680, height=1000)  # between margins of 1.5 cm


@pytest.mark.parametrize("name", ["intensity", "what-to-do", "tiles", "measurements-in-full"])
def test_a_page_can_be_handed_out(visit, name):
    page = visit(name, viewport=A4, color_scheme="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    assert fits(page)
    # Nothing is folded, and nothing cut at the edge of the paper.
    shut = "all => all.filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length"
    assert page.locator("article details > *").evaluate_all(shut) == 0
    outside = "e => e.getBoundingClientRect().right > innerWidth + 1"
    cut = f"all => all.filter({outside}).map(e => e.innerText)"
    assert page.locator("article :is(pre, table, figure, img)").evaluate_all(cut) == []
    overflowing = "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"
    assert page.locator("article pre").evaluate_all(overflowing) == []
    # The text alone, on white, with where a link to elsewhere leads.
    for gone in ("aside", "footer", "header", "button", ".downloads", ".skip-to-content"):
        assert not any(page.locator(gone).evaluate_all("all => all.map(e => e.checkVisibility())"))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("article").evaluate("e => e.getBoundingClientRect().left") < 30


def test_paper_shows_where_links_lead(visit):
    page = visit("what-to-do").page
    page.emulate_media(media="print")
    link = page.locator("article a.external").first
    after = link.evaluate("e => getComputedStyle(e, '::after').content")
    assert link.get_attribute("href") in after
