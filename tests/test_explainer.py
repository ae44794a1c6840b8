"""The box for a message in a real browser: its answers are those of ``attnmem explain``."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import explainer
import pytest
import torch
from conftest import ROOT
from playwright.sync_api import Browser, Page, expect
from test_browser import findings
from test_messages import FORMS, NEW, NOT_ATTENTION, OLD, TRIED
from test_messages import ROUND as ROUND_SIZES
from visiting import LAPTOP, PHONE, alone, fits

from attnmem.catalog import MODELS
from attnmem.messages import answer, explain
from attnmem.messages.reports import REPORTS
from attnmem.messages.shapes import KINDS
from attnmem.prediction.allocator import printed_size, segment_size

KNOWN: dict[str, Any] = dict.fromkeys(("heads", "seq_len", "batch", "vocabulary", "dtype"))

# All numbers as text, since JSON has no whole numbers of this size.
EVALUATE = """cases => cases.map(([text, known]) => {
  const { explain } = window.explainer;
  const found = explain(text, known);
  if (found.refused) return null;
  const { message, candidates, odds, sure, attention, lines } = found;
  const said = ([name, x]) => [name, x?.low === undefined ? x : [String(x.low), String(x.high)]];
  return {
    message: Object.fromEntries(Object.entries(message).map(said)),
    candidates: candidates.map(({ kind, factors, bytes, models, rare }) => [
      kind.name, factors, String(bytes), models, rare,
    ]),
    odds: [...odds],
    sure,
    attention,
    lines,
  };
})"""


@pytest.fixture(scope="module")
def bare(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """What the extension writes, alone in a file."""
    yield from alone(browser, tmp_path_factory.mktemp("explainer"), explainer.html())


Case = tuple[str, dict[str, Any]]


def expected(text: str, given: dict[str, Any]) -> dict[str, Any] | None:
    """What the box must find; ``None`` where the text has no message."""
    try:
        found = explain(text, **given)
    except ValueError:
        return None
    message = {
        name: [str(x["low"]), str(x["high"])] if isinstance(x, dict) else x
        for name, x in asdict(found.message).items()
    }
    return {
        "message": message,
        "candidates": [
            [s.kind.name, [[*f] for f in s.factors], str(s.bytes), [*s.models], s.rare]
            for s in found.candidates
        ],
        "odds": [[",".join(way), odd] for way, odd in found.odds.items()],
        "sure": found.sure,
        "attention": found.attention,
        "lines": found.lines,
    }


def compare(page: Page, cases: list[Case]) -> list[dict[str, Any] | None]:
    """Ask both; what they say, where it is the same."""
    asked = []
    for text, given in cases:
        known = KNOWN | given
        dtype = known.pop("dtype")
        asked.append([text, known | {"bytes": dtype and getattr(torch, dtype).itemsize}])
    answers: list[dict[str, Any] | None] = page.evaluate(EVALUATE, asked)
    for case, found in zip(cases, answers, strict=True):
        wanted = expected(*case)
        if wanted is None or found is None:
            assert wanted == found, case
            continue
        # Logarithms and powers of two libraries: their last bit may differ.
        odds = [dict(found.pop("odds")), dict(wanted.pop("odds"))]
        assert odds[0] == pytest.approx(odds[1], rel=1e-12), case
        for side in (found, wanted):
            side["rare"] = [c.pop() for c in side["candidates"]]
        assert found.pop("rare") == pytest.approx(wanted.pop("rare"), rel=1e-12), case
        assert found == wanted, case
    return answers


OTHER_FORMS = (
    "MPS backend out of memory (MPS allocated: 4.06 GB, other allocations: 2.73 GB, max allowed"
    ": 6.77 GB). Tried to allocate 192.00 MB on private pool.",
    "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated"
    "     : 9.43 GiB\nRequested               : 640.00 MiB\n"
    "Device limit            : 11.59 GiB\nFree (according to CUDA): 7.12 MiB",
    "OOM when allocating tensor with shape[32,4,4096,4096] and type float on",
    "oom WHEN allocating tensor with shape [ 8, 1024 ] and type half on",
    "OOM when allocating tensor with shape[,] and type bool",
    "Resource exhausted: Out of memory while trying to allocate 12,582,912 bytes.",
    "while trying to allocate 1.50GiB",
    f"{TRIED}1024.00 KiB {OLD}30.96 MiB cached)",
    f"{TRIED}1.70 GiB. {NEW.replace('396.58 MiB', '2.30 GiB')}",
    f"{TRIED}1.70 GiB. {NEW.replace('396.58', '1800.125')}",
    f"{TRIED}21.76 GiB {OLD}",
    *(f"{TRIED}394.00 MiB (GPU 0; 0.38 GiB {said})" for said in ("free", "total capacity")),
    f"{TRIED}394.00 MiB (GPU 0; 1.00 GiB already allocated; 394.00 MiB cached)",
    f"{TRIED}0.49 KiB",
    f"{TRIED}99999999999999999999 TiB",
)

NO_MESSAGE = (
    "",
    "hello",
    "Killed",
    "RuntimeError: CUDA error: out of memory",
    "Tried to allocate some memory",
    "Tried to allocate 0 bytes",
    "Tried to allocate 1.2.3 GiB",
    "Tried to allocate ٣.00 GiB",
    "Tried to allocate 2.00\ufeffGiB",
    "Tried to allocate 2.00 GiBs",
    f"Tried to allocate {'9' * 400} GiB",
    "OOM when allocating tensor with shape[8,2] and type string on",
    "OOM when allocating tensor with shape[8,2] and type constructor on",
    "KeyError: 'query'; IndexError: list index out of range",
)


def test_forms_and_reports_are_answered_as_in_python(bare):
    texts = [*FORMS, *OTHER_FORMS, *NOT_ATTENTION.values(), *(TRIED + size for size in ROUND_SIZES)]
    texts += [report.message for report in REPORTS if report.message]
    spaced = [text.replace(" ", "\x1f\u00a0\n\u2028") for text in texts]
    cases: list[Case] = [(text, {}) for text in [*texts, *spaced]]
    cases += [(report.message, report.given) for report in REPORTS if report.message]
    answers = compare(bare, cases)
    assert None not in answers
    sure = {found["sure"] for found in answers if found}
    assert sure >= {"likely", "a guess", "by chance", "nothing"}


@pytest.mark.parametrize("text", NO_MESSAGE)
def test_what_is_no_message_is_refused_by_both(bare, text):
    assert compare(bare, [(text, {})]) == [None]


def test_memory_that_is_not_attention_gets_no_answer_of_attention(bare):
    for found in compare(bare, [(text, {}) for text in NOT_ATTENTION.values()]):
        assert found
        assert not found["attention"]


PLACES = (f" {OLD}25.84 MiB cached)", f" {OLD}14.32 GiB reserved in total by PyTorch)", f". {NEW}")


def draw(chance: random.Random) -> Case:
    """A message of any form, about a tensor of somebody's or of nobody's, and what is known."""
    model = chance.choice(MODELS)
    n = max(1, model.context // chance.choice((1, 2, 3, 8, chance.randint(1, 200))))
    batch, e = chance.choice((1, 2, 3, 8, 12, chance.randint(1, 300))), chance.choice((2, 4))
    truth: dict[str, Any] = {"heads": model.heads, "seq_len": n, "batch": batch}
    truth |= {"vocabulary": model.vocabulary or 1000, "dtype": {2: "bfloat16", 4: "float32"}[e]}
    size = chance.choice(
        (
            batch * model.heads * n * n * e,
            batch * n * truth["vocabulary"] * e,
            n * n,
            int(2 ** chance.uniform(9, 42)),
            chance.randint(1, 15) << chance.randint(9, 40),
        )
    )
    known = {name: value for name, value in truth.items() if chance.random() < 0.3}
    if chance.random() < 0.2:
        known |= {chance.choice(("heads", "seq_len", "batch")): chance.randint(1, 10**5)}
    asked = printed_size(segment_size(size))
    text = chance.choice(
        (
            f"{TRIED}{asked}",
            *(f"{TRIED}{asked}{place}" for place in PLACES),
            f"HIP out of memory. Tried to allocate {asked}. {NEW}",
            f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {size} bytes.",
            f"RuntimeError: Invalid buffer size: {printed_size(size)}",
            f"OOM when allocating tensor with shape[{size},1] and type half on /device:GPU:0",
        )
    )
    return text, known


@pytest.mark.parametrize("seed", range(4))
def test_any_message_is_answered_as_in_python(bare, seed):
    chance = random.Random(seed)
    cases = [draw(chance) for _ in range(250)]
    answers = compare(bare, cases)
    sure = [found["sure"] for found in answers if found]
    assert len(sure) == len(cases)
    assert {*sure} >= {"likely", "one of several", "a guess", "by chance", "nothing"}


def test_sizes_are_printed_as_pytorch_prints_them(bare):
    chance = random.Random(0)
    sizes = [chance.randint(0, 2 ** chance.randint(1, 50)) for _ in range(500)]
    sizes += [m * 2**k for m in (1, 3, 5, 7, 9, 1001) for k in range(5, 40)]  # halves among them
    script = "sizes => sizes.map((size) => window.explainer.printedSize(BigInt(size)))"
    assert bare.evaluate(script, [str(x) for x in sizes]) == [printed_size(x) for x in sizes]


def test_script_and_data_weigh_less_than_10_kb():
    weight = len(gzip.compress((explainer.BOX.module() + explainer.data()).encode()))
    assert 3_000 < weight < 10_000
    assert json.loads(explainer.data())["sentences"] == answer.SENTENCES


# The box on its page


@pytest.fixture
def page(visit) -> Page:
    return visit("messages", color_scheme="light", viewport=LAPTOP).page


LOGITS = TRIED + "786.00 MiB " + OLD + "14.32 GiB reserved in total by PyTorch)"
STATES = {
    "empty": "",
    "likely": LOGITS,
    "by chance": TRIED + "2.00 GiB",
    "with pieces": f"{TRIED}1.70 GiB. {NEW.replace('396.58 MiB', '2.30 GiB')}",
    "no message": "hello",
}


def paste(page: Page, text: str) -> str:
    page.get_by_label("Paste the message").fill(text)
    return page.locator("#explain .answer").inner_text()


@pytest.mark.parametrize("text", STATES.values(), ids=STATES)
def test_axe_finds_nothing_in_any_state(page, text):
    paste(page, text)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert findings(page, "mjx-container") == []
    for size in (PHONE, LAPTOP):
        page.set_viewport_size(size)
        assert fits(page)


def test_an_answer_leads_to_what_helps(page):
    said = paste(page, f"Traceback\n{LOGITS}")
    assert "Likely, and not attention:" in said
    assert "4 sequences, 1,024 tokens, 50,257 words, 32 bit" in said
    link = page.locator("#explain .answer a")
    assert "what-to-do.html" not in said
    link.click()
    expect(page).to_have_url(re.compile("what-to-do.html#what-to-do-loss$"))
    assert page.locator("#what-to-do-loss h2").first.is_visible()


def test_every_answer_s_link_has_the_title_of_a_section(page):
    links = page.locator("#explain-cures a")
    labels = {kind.cure for kind in KINDS} | {"what-to-do-fragmentation"}
    assert {link.get_attribute("href") for link in links.all()} == {
        f"what-to-do.html#{label}" for label in labels
    }
    text = (ROOT / "book" / "en" / "what-to-do.md").read_text()
    for title in links.all_text_contents():
        assert f"\n## {title}\n" in text


def test_what_is_no_message_is_said_to_be_none(page):
    assert paste(page, "hello").startswith("This is no message that we can read.")
    assert paste(page, "").strip() == ""


def test_what_the_reader_knows_narrows_the_answer_and_what_is_wrong_is_named(page):
    assert "A guess" in paste(page, TRIED + "384.00 MiB")
    for label, text in (("Heads", "12"), ("Tokens", "1k"), ("Batch", "8")):
        page.locator("#explain").get_by_label(label).fill(text)
    answered = page.locator("#explain .answer")
    assert "8 sequences, 12 heads, 1,024 tokens, 32 bit" in answered.inner_text()
    heads = page.locator("#explain").get_by_label("Heads")
    heads.fill("1.5")
    assert "Heads: a whole number from 1" in page.locator("#explain").inner_text()
    expect(heads).to_have_attribute("aria-invalid", "true")
    assert answered.inner_text() == ""
    heads.fill("")
    assert answered.inner_text()


def test_the_keyboard_reaches_everything(page):
    page.get_by_label("Paste the message").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the example
    expect(page.locator("#explain .answer")).to_contain_text("Likely")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # clear
    expect(page.locator("#explain .answer")).to_be_empty()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "heads"


def test_it_works_opened_as_a_file_and_asks_nobody(built_book, browser):
    with browser.new_context() as context:
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((built_book / "messages.html").as_uri())
        assert "Likely" in paste(page, LOGITS)
        assert wrong == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_on_paper_and_without_scripts_there_is_no_box(built_book, browser, page):
    page.emulate_media(media="print")
    assert not page.locator("#explain").is_visible()
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto((built_book / "messages.html").as_uri())
        assert not plain.locator("#explain").is_visible()
        assert not plain.locator("#explain-cures").is_visible()
        assert "attnmem explain" in plain.locator("noscript p").first.inner_text()
