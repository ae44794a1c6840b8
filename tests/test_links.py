"""Links within the built book: Sphinx knows nothing of those in what cells print."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest


class Page(HTMLParser):
    """What a page can be linked to by, and where its own links lead."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.names |= {name for key in ("id", "name") if (name := found.get(key))}
        if tag == "a" and (link := found.get("href")):
            self.links.add(link)


def broken(book: Path) -> list[str]:
    pages = {file.resolve(): Page(file) for file in book.rglob("*.html")}
    found = []
    for file, page in pages.items():
        for link in page.links:
            address, name = urldefrag(link)
            if "://" in link or "=" in name:  # elsewhere, or sizes for the explorer
                continue
            place = (file.parent / unquote(address)).resolve() if address else file
            there = place in pages and (not name or unquote(name) in pages[place].names)
            if not there and (name or not place.is_file()):
                found.append(f"{file.relative_to(book.resolve())}: {link}")
    return sorted(found)


def test_every_link_within_the_book_leads_somewhere(in_chinese):
    assert broken(in_chinese.parent) == []  # the English edition is beside it


@pytest.mark.parametrize("link", ["#there", "other.html#nowhere", "nowhere.html"])
def test_a_link_that_leads_nowhere_is_found(tmp_path, link):
    index = f'<p id="here"><a href="#here">a</a><a href="{link}">b</a>'
    (tmp_path / "index.html").write_text(index)
    (tmp_path / "other.html").write_text('<p id="there"><a href="index.html#here">c</a>')
    assert broken(tmp_path) == [f"index.html: {link}"]
