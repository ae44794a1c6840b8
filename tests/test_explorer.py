"""The explorer in a real browser: its numbers are those of a trace, and every reader can use it."""

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import explorer
import pytest
from conftest import CHAPTERS, ROOT
from playwright.sync_api import Browser, Page, expect
from settings import EVALUATE, Case, draw, expected, workload
from test_browser import findings
from visiting import LAPTOP, PHONE, alone, fits

from attnmem.catalog import model
from attnmem.lessons.explorer import CARDS, OFFERED, TILED, common
from attnmem.prediction.trace import trace

SEEDS = range(4)
CASES = int(os.environ.get("ATTNMEM_CASES", "1000")) // len(SEEDS)  # 10,000 take some minutes


@pytest.fixture(scope="module")
def bare(kept, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """What the extension writes, alone in a file."""
    yield from alone(browser, tmp_path_factory.mktemp("explorer"), explorer.html(**kept))


@pytest.mark.parametrize("seed", SEEDS)
def test_page_and_trace_agree_to_the_byte(bare, seed):
    chance = random.Random(seed)
    cases = [draw(chance) for _ in range(CASES)]
    answered = 0
    for case, found in zip(cases, bare.evaluate(EVALUATE, cases), strict=True):
        wanted = expected(case)
        if wanted is None or found is None:
            assert wanted == found, case
            continue
        answered += 1
        # Of tiles, thousands of quotients: turns that repeat are multiplied, and not added up.
        assert found.pop("seconds") == pytest.approx(wanted.pop("seconds"), rel=1e-12), case
        assert found == wanted, case
    assert answered > 0.7 * CASES


def test_the_longest_sequence_is_that_of_a_trace(bare):
    chance = random.Random(0)
    cases: list[Case] = []
    while len(cases) < 20:
        case = draw(chance)
        small = case["d"] <= 128 and case["d"] % 8 == 0 and case["B"] * case["H"] <= 64
        taken = case["program"] not in ("cudnn_sdpa", TILED)  # not for N = 1; not in time
        if small and case["dtype"] != "float32" and taken:
            cases.append(case | {"memory": chance.randint(2**28, 2**37)})
    for case, found in zip(cases, bare.evaluate(EVALUATE, cases), strict=True):
        wanted = expected(case)
        assert (found and found["longest"]) == (wanted and wanted["longest"]), case


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("program", [name for name in OFFERED if name != TILED])
def test_the_formula_is_that_of_a_trace(bare, program, training):
    case = {"B": 1, "H": 12, "G": 12, "N": 512, "d": 64, "dtype": "float16"}
    script = """([given, program, training]) => {
      const { run, sizesOf, termsOf, formulaOf } = window.explorer;
      const of = sizesOf(given);
      const found = run(of, program, training);
      const terms = termsOf(found, of);
      const rest = terms.reduce((sum, term) => sum - term.bytes, found.requested);
      return [formulaOf(terms), String(rest)];
    }"""
    t = trace(OFFERED[program], workload(case), training)
    assert bare.evaluate(script, [case, program, training]) == [str(t.formula), "0"]


def test_what_is_kept_is_of_this_code():
    found = explorer.FORM.folder / "kept" / explorer.name()
    assert found.exists(), f"build the book, and move _build/explorer/{found.name} there"


def test_script_and_data_weigh_less_than_25_kb(kept):
    data = json.dumps(kept["data"], ensure_ascii=False, separators=(",", ":"))
    weight = len(gzip.compress((explorer.FORM.module() + data).encode()))
    assert 5_000 < weight < 25_000


@pytest.fixture
def page(visit) -> Page:
    return visit("explorer", color_scheme="light", viewport=LAPTOP).page


def open_case(page: Page, case: str) -> None:
    page.goto(f"{page.url.partition('#')[0]}#{case}")
    page.reload()  # an address that differs after its # alone is no new page


def answer(page: Page) -> str:
    return page.locator(".answer").inner_text()


STATES = {
    "it fits": "program=flash_sdpa&mode=training&N=4096",
    "it is too large": "program=standard_attention&mode=training&N=1048576&layers=32",
    "it is refused": "program=cudnn_sdpa&dtype=float32",
    "the input is wrong": "program=one_liner&N=1.5",
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_axe_finds_nothing_in_any_state(page, state):
    open_case(page, state)
    page.evaluate("document.querySelectorAll('#explore details').forEach(d => d.open = true)")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert findings(page, "mjx-container") == []
    for size in (PHONE, LAPTOP):
        page.set_viewport_size(size)
        assert fits(page)


def test_a_case_in_the_address_opens(page, built_book):
    address = (
        "program=causal_attention&mode=inference&dtype=bfloat16&card=L4"
        "&B=3&H=16&G=4&N=1000&d=80&layers=7"
    )
    open_case(page, address)
    assert dict(parse_qsl(page.evaluate("location.hash.slice(1)"))) == dict(parse_qsl(address))
    w = workload({"B": 3, "H": 16, "G": 4, "N": 1000, "d": 80, "dtype": "bfloat16"})
    t = trace(OFFERED["causal_attention"], w)
    numbers = page.locator("[data-show=memory]").inner_text()
    for size in (t.peak_bytes, t.peak_allocated_bytes, t.peak_reserved_bytes):
        assert f"{size:,} B" in numbers
    page.get_by_label("Tokens N").fill("2000")
    assert "N=2000" in page.evaluate("location.hash")
    page.reload()
    assert "2,000 tokens" in answer(page)


def test_it_works_opened_as_a_file(built_book, browser):
    with browser.new_context() as context:
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(f"{(built_book / 'explorer.html').as_uri()}#N=2048&program=one_liner")
        assert "2,048 tokens" in answer(page)
        assert wrong == []


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "1e3", "99999999999999999999", "²"])
def test_bad_input_gets_a_message_beside_it(page, text):
    field = page.get_by_label("Batch B")
    field.evaluate("(field, text) => { field.type = 'text'; field.value = text }", text)
    field.dispatch_event("input")
    message = page.locator("#wrong-B").inner_text()
    assert message.startswith("Batch: a whole number from 1 to 4,096.")
    assert text in message
    expect(field).to_have_attribute("aria-invalid", "true")
    assert answer(page) == message
    assert not page.locator("[data-show=results]").is_visible()
    assert "NaN" not in page.locator("#explore").inner_text()
    field.fill("2")
    assert page.locator("#wrong-B").inner_text() == ""
    assert "tokens need" in answer(page)


@pytest.mark.parametrize(("text", "tokens"), [("32k", 32768), ("32,768", 32768), ("1,5", None)])
def test_tokens_are_read_as_people_write_them(page, text, tokens):
    page.get_by_label("Tokens N").fill(text)
    said = f"{tokens:,} tokens" if tokens else "a whole number"
    assert said in answer(page)


def test_a_chosen_length_stays_when_a_model_is_chosen(page):
    page.get_by_label("Tokens N").fill("3000")
    page.get_by_label("Model").select_option("Llama 3 8B")
    assert "3,000 tokens" in answer(page)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("program=flash_sdpa&card=T4", "on the T4, compute capability 7.5: it takes 8.0 to 12.1"),
        ("program=efficient_sdpa&card=T4&dtype=bfloat16", "on the T4, bfloat16: it takes float16"),
        ("program=cudnn_sdpa&card=B200&d=256", "on the B200, head_dim 256 is over 128"),
        (
            "program=flash_sdpa&card=RTX+5090&d=208&mode=training",
            "on the RTX 5090, a gradient with",
        ),
    ],
)
def test_a_kernel_that_a_card_does_not_take_is_refused(page, case, why):
    open_case(page, f"{case}&N=4096")
    assert f"_sdpa does not take this case: {why}" in answer(page)


def test_heads_that_keys_do_not_divide_are_named(page):
    page.get_by_label("Heads of K and V").fill("5")
    assert "divides the 12 heads" in page.locator("#wrong-G").inner_text()


def test_the_keyboard_answers_a_question(page):
    page.get_by_label("Model").focus()
    page.keyboard.type("Llama 3 8B")
    for _ in range(20):
        if page.evaluate("document.activeElement.name") == "N":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("32768")
    assert "does not fit the RTX 4090 (24 GiB, 25.8\u00a0GB)" in answer(page)
    assert "flash_sdpa would fit" in answer(page)
    before = page.locator("[data-show=memory]").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")  # the slider
    assert page.get_by_label("Tokens N").input_value() == "24576"
    assert page.locator("[data-show=memory]").inner_text() != before
    link = page.locator("[data-show=programs] a", has_text="flash_sdpa")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Program")).to_have_value("flash_sdpa")
    assert "fits the RTX 4090" in answer(page)


def test_who_follows_a_link_stays_there(page):
    page.locator("[data-show=programs] a", has_text="flash_sdpa").press("Enter")
    focused = page.locator("[data-show=programs] a:focus")
    expect(focused).to_have_text("flash_sdpa")
    expect(focused).to_have_attribute("aria-current", "true")


@pytest.mark.parametrize("wrong", ["program=flash", "dtype=int7", "card=Abacus", "n=5", "mode="])
def test_an_address_with_what_there_is_not_opens_the_case_at_first_and_says_so(page, wrong):
    at_first = page.evaluate("location.hash")
    open_case(page, "program=flash_sdpa&N=2048&H=8")
    assert page.get_by_label("Heads of K and V").input_value() == "8"
    page.evaluate("wrong => { location.hash = wrong }", wrong)
    expect(page.locator(".answer")).to_contain_text(f"The address says “{wrong}”")
    assert page.evaluate("location.hash") == at_first
    page.get_by_label("Batch B").fill("2")
    assert "The address" not in answer(page)


def test_the_answer_leads_to_what_would_fit_and_what_else_helps(page, built_book):
    open_case(page, "program=standard_attention&mode=training&N=32768&H=32&G=8&d=128&layers=32")
    page.locator(".answer").get_by_role("link", name="flash_sdpa").press("Enter")
    expect(page.get_by_label("Program")).to_have_value("flash_sdpa")
    expect(page.locator(".answer")).to_be_focused()
    for file in "what-to-do.html", "more-cures.html":
        (label,) = page.locator(f"#explore a[href^='{file}']").all()
        anchor = (label.get_attribute("href") or "").partition("#")[2]
        assert f'id="{anchor}"' in (built_book / file).read_text()


def test_keys_and_values_of_fewer_heads_can_be_repeated(page):
    open_case(page, "program=causal_attention&H=32&G=8&N=1024&d=128")
    assert "The address" not in answer(page)
    open_case(page, "program=one_liner&H=32&G=8&N=1024&d=128")
    assert "one_liner does not take this case: K has fewer heads" in answer(page)
    page.get_by_role("link", name="Repeat K and V").press("Enter")
    expect(page.get_by_label("Heads of K and V")).to_have_value("32")
    expect(page.locator(".answer")).to_be_focused()
    assert "1,024 tokens need" in answer(page)


def test_a_preset_has_the_sizes_of_its_model(page):
    page.get_by_label("Model").select_option("Llama 3.1 405B")
    found = model("Llama 3.1 405B")
    for label, size in (
        ("Heads H", found.heads),
        ("Heads of K and V", found.kv_heads),
        ("Head dimension", found.head_dim),
        ("Tokens N", found.context),
        ("Layers", found.layers),
    ):
        expect(page.get_by_label(label)).to_have_value(str(size))


def test_without_scripts_a_table_stands_there(built_book, browser):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((built_book / "explorer.html").as_uri())
        rows = page.locator("article tr:visible")
        assert rows.count() == len(common().rows) + 1
        assert not page.locator("#explore").is_visible()


def test_every_chapter_opens_a_case_of_its_own():
    fields = {"program": OFFERED, "mode": ("training", "inference")}
    fields |= {"card": [card.name for card in CARDS], "dtype": ("float16", "bfloat16", "float32")}
    cases = []
    for chapter in CHAPTERS:
        text = Path(ROOT, "book", "en", f"{chapter}.md").read_text()
        (case,) = re.findall(r"\{explore\}`[^`<]+<([^`>]+)>`", text)
        for name, value in parse_qsl(case, strict_parsing=True):
            if name in fields:
                assert value in fields[name], case
            else:
                assert name in ("B", "H", "G", "N", "d", "layers"), case
                assert int(value) > 0
        cases.append(case)
    assert len(set(cases)) == len(CHAPTERS)
