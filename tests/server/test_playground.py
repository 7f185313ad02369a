"""The playground in a real browser, on the real server of the tiny pair."""

from __future__ import annotations

import contextlib
import importlib.resources
import io
import json
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from baco_integrations import Decoder, SamplingParams
from baco_integrations.core.params import DEFAULT_GAMMA, DEFAULT_MAX_TOKENS, DEFAULT_TEMPERATURE
from baco_integrations.core.routing import ROUTERS
from tests.server.browser import (
    COLUMNS,
    body_of,
    chromium,
    column,
    is_chat,
    open_page,
    run,
    steps_of,
    tokens,
)
from tests.server.serving import Serving, serving

PROMPT = "Suggest a hobby."
NASTY = 'It\'s "quoted", $HOME, `id`, \\n, 100 %, é 🐙\nand a second line </script>'
SOURCES = {"base", "aligned"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, served: Serving) -> Iterator[Page]:
    with watched(browser, served) as opened:
        open_page(opened, served.url)
        yield opened


@contextlib.contextmanager
def watched(
    browser: Browser, served: Serving, tolerated: str = "?!", **options: Any
) -> Iterator[Page]:
    """Open a page on which nothing may go wrong; one kind of message may be tolerated."""
    context = browser.new_context(reduced_motion="reduce", **options)
    context.set_default_timeout(10_000)
    opened, troubles = context.new_page(), list[str]()
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on(
        "console",
        lambda message: (
            troubles.append(message.text)
            if message.type in ("error", "warning") and tolerated not in message.text
            else None
        ),
    )
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((served.url, "data:")) else troubles.append(request.url)
        ),
    )
    yield opened
    context.close()
    assert troubles == []


@contextlib.contextmanager
def forced(page: Page, **fields: Any) -> Iterator[None]:
    """Have the server get fields that the page does not send, such as a text to give."""

    def send(route: Route) -> None:
        route.continue_(post_data=json.dumps({**body_of(route.request), **fields}))

    page.route("**/v1/chat/completions", send)
    yield
    page.unroute("**/v1/chat/completions")


def text_of(page: Page, name: str = "baco") -> str:
    return column(page, name).locator(".text").text_content() or ""


def params_of(body: dict[str, Any]) -> SamplingParams:
    known = set(SamplingParams.model_fields)
    return SamplingParams(**{key: value for key, value in body.items() if key in known})


def set_gamma(page: Page, gamma: float) -> None:
    page.get_by_role("slider", name="Gamma", exact=True).fill(str(gamma))


def asked_by(page: Page, action: Callable[[], object]) -> Request:
    """Return the request for an answer that an action makes, once it has been answered."""
    with page.expect_request_finished(is_chat) as waiting:
        action()
    return waiting.value


# -- answers ---------------------------------------------------------------------------------------


def test_form_says_what_the_package_says(page: Page) -> None:
    values = {
        n: page.locator(f"#{n}").input_value() for n in ("gamma", "temperature", "max_tokens")
    }
    assert [float(value) for value in values.values()] == [
        DEFAULT_GAMMA,
        DEFAULT_TEMPERATURE,
        DEFAULT_MAX_TOKENS,
    ]
    options = page.locator("#router option").all()
    named = {option.text_content(): option.get_attribute("data-gamma") for option in options}
    both = {name: spec for name, spec in ROUTERS.items() if spec.only is None}
    assert named == {name: None if spec.rule else "unused" for name, spec in both.items()}
    assert page.locator("#router").input_value() == SamplingParams().router


def test_columns_are_the_decoders_answers(page: Page, local: Decoder) -> None:
    asked = run(page, PROMPT)
    for name in COLUMNS:
        body = body_of(asked[name])
        assert body["messages"] == [{"role": "user", "content": PROMPT}]
        (here,) = local.generate(body["messages"], params_of(body))
        assert text_of(page, name) == here.text
        facts = column(page, name).locator(".facts")
        expect(facts).to_contain_text(f"{100 * here.base_share:.0f} % base")
        expect(facts).to_contain_text(f"{len(here.steps)} tokens")
        expect(facts).to_contain_text(f"({here.finish_reason})")
    assert "gamma" not in body_of(asked["base"]) and body_of(asked["baco"])["gamma"] == 0.6


def test_tokens_are_marked_by_their_source(page: Page) -> None:
    asked = run(page, PROMPT)
    for name in COLUMNS:
        shown = tokens(page, name).all()
        told = steps_of(asked[name])
        assert [token.text_content() for token in shown] == [each["baco"]["text"] for each in told]
        for token, each in zip(shown, told, strict=True):
            classes = set((token.get_attribute("class") or "").split())
            assert classes & SOURCES == {each["baco"]["source"]}
    look = """word => [getComputedStyle(word).color, getComputedStyle(word).textDecorationLine]"""
    styles = {
        source: column(page, "baco").locator(f".{source} > .word").first.evaluate(look)
        for source in SOURCES
    }
    assert styles["base"][0] != styles["aligned"][0]
    assert [styles[source][1] for source in ("base", "aligned")] == ["underline", "none"]


def test_gamma_is_live(page: Page, local: Decoder) -> None:
    run(page, PROMPT)
    before = text_of(page, "base")
    asked = asked_by(page, lambda: set_gamma(page, 0))
    body = body_of(asked)
    assert (body["router"], body["gamma"], body["seed"]) == ("p-punc", 0, 7)
    (here,) = local.generate(PROMPT, params_of(body))
    expect(column(page, "baco").locator(".text")).to_have_text(here.text)
    assert {each["baco"]["source"] for each in steps_of(asked)} == {"aligned"}
    assert text_of(page, "base") == before
    expect(page.locator("#gamma-value")).to_have_text("0.00")


def test_gamma_rests_before_it_is_asked_for(page: Page) -> None:
    run(page, PROMPT)
    page.clock.install()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    for gamma in (0.1, 0.2, 0.3):
        set_gamma(page, gamma)
        page.clock.run_for(100)
    assert asked == []
    asked_by(page, lambda: page.clock.run_for(100))
    assert [body_of(request)["gamma"] for request in asked] == [0.3]


def test_new_gamma_cancels_the_old_request(page: Page) -> None:
    run(page, PROMPT)
    before = text_of(page)
    page.route("**/v1/chat/completions", lambda route: None)  # never answered
    with page.expect_request(is_chat) as first:
        set_gamma(page, 0.1)
    page.unroute("**/v1/chat/completions")
    with page.expect_event("requestfailed") as failed:
        asked = asked_by(page, lambda: set_gamma(page, 0))
    assert failed.value == first.value and "ABORTED" in failed.value.failure
    expected = "".join(each["baco"]["text"] for each in steps_of(asked))
    expect(column(page, "baco").locator(".text")).to_have_text(expected)
    assert expected != before


def test_router_without_gamma(page: Page) -> None:
    run(page, PROMPT)
    body = body_of(asked_by(page, lambda: page.get_by_label("Router").select_option("punc")))
    assert body["router"] == "punc" and "gamma" not in body
    expect(page.locator("#gamma")).to_be_disabled()
    expect(page.locator("#gamma-value")).to_have_text("unused")
    page.locator("#sweep > summary").click()
    page.get_by_role("button", name="Run the sweep").click()
    expect(page.locator("#sweep-alert")).to_contain_text("The router punc has no gamma")


def test_stop_keeps_what_there_is(page: Page) -> None:
    stop = page.get_by_role("button", name="Stop", exact=True).first
    expect(stop).to_be_disabled()
    run(page, PROMPT)
    before = text_of(page)
    expect(stop).to_be_disabled()
    page.route("**/v1/chat/completions", lambda route: None)
    with page.expect_request(is_chat):
        set_gamma(page, 0)
    with page.expect_event("requestfailed"):
        stop.click()
    expect(stop).to_be_disabled()
    assert text_of(page) == before
    expect(page.get_by_role("alert")).to_have_count(0)


# -- a token's details -----------------------------------------------------------------------------


def numbers(page: Page, place: str) -> list[float]:
    found = page.locator(f"#details {place} data").all()
    return [float(each.get_attribute("value") or "nan") for each in found]


def check_details(page: Page, step: dict[str, Any]) -> None:
    expect(page.locator("#details")).to_be_visible()
    told = step["baco"]
    expect(page.locator("#details .name b")).to_have_text(told["source"])
    assert numbers(page, ".chances") == [told[f"p_{s}"] for s in ("base", "aligned", "sampled")]
    offered = [told["alternatives"][side] for side in ("base", "aligned", "sampled")]
    by_row = [each["probability"] for row in zip(*offered, strict=True) for each in row]
    assert numbers(page, "tbody") == by_row


def test_pointing_shows_both_models_view(page: Page) -> None:
    steps = steps_of(run(page, PROMPT)["baco"])
    for index in (0, 4):
        tokens(page).nth(index).hover()
        check_details(page, steps[index])
    page.locator("#details").hover()  # the way to the box does not lose it
    expect(page.locator("#details")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()


def test_focus_shows_both_models_view(page: Page) -> None:
    steps = steps_of(run(page, PROMPT)["baco"])
    tokens(page).first.focus()
    check_details(page, steps[0])
    for key, index in (("ArrowRight", 1), ("End", len(steps) - 1), ("ArrowLeft", len(steps) - 2)):
        page.keyboard.press(key)
        token = tokens(page).nth(index)
        expect(token).to_be_focused()
        expect(token).to_have_attribute("tabindex", "0")
        expect(token).to_have_attribute("aria-describedby", "details-summary")
        check_details(page, steps[index])
    assert column(page, "baco").locator(".token[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    expect(tokens(page).nth(len(steps) - 2)).to_be_focused()


# -- branches --------------------------------------------------------------------------------------


def check_branch(page: Page, asked: Request, kept: str, place: int) -> None:
    body = body_of(asked)
    assert body["continue_final_message"] is True
    assert body["messages"][-1] == {"role": "assistant", "content": kept}
    assert body["seed"] != 7
    item = page.locator("#branch-list > li").nth(place)
    expect(item.locator(".kept")).to_have_text(kept)
    new = "".join(each["baco"]["text"] for each in steps_of(asked))
    expect(item.locator(".text")).to_have_text(kept + new)
    expect(item).to_contain_text(f"seed {body['seed']}")


def test_branching_keeps_the_text_before_a_token(page: Page, served: Serving) -> None:
    steps = steps_of(run(page, PROMPT)["baco"])
    before = text_of(page)
    asked = asked_by(page, tokens(page).nth(4).click)
    kept = "".join(each["baco"]["text"] for each in steps[:4])
    check_branch(page, asked, kept, 0)
    whole = httpx.post(f"{served.api}/chat/completions", json={**body_of(asked), "stream": False})
    assert text_of(page) == before
    item = page.locator("#branch-list > li")
    expect(item.locator(".text")).to_have_text(
        kept + whole.json()["choices"][0]["message"]["content"]
    )
    # A branch of the branch keeps both parts.
    later = asked_by(page, item.locator(".token").nth(2).click)
    more = "".join(each["baco"]["text"] for each in steps_of(asked)[:2])
    check_branch(page, later, kept + more, 1)
    page.get_by_role("button", name="from branch 1").click()
    expect(item.nth(0).locator(".token").nth(2)).to_be_focused()
    page.get_by_role("button", name="Remove branch 1").click()
    expect(item).to_have_count(1)


def test_branching_into_an_alternative(page: Page) -> None:
    steps = steps_of(run(page, PROMPT)["baco"])
    kept = "".join(each["baco"]["text"] for each in steps[:4])
    other = steps[4]["baco"]["alternatives"]["aligned"][0]
    assert other["token_id"] != steps[4]["baco"]["token_id"]
    tokens(page).nth(4).hover()
    choice = page.locator("#details tbody tr").first.locator("td").nth(1).get_by_role("button")
    check_branch(page, asked_by(page, choice.click), kept + other["text"], 0)
    expect(page.locator("#details")).to_be_hidden()


def test_branch_at_the_first_token_is_a_new_answer(page: Page) -> None:
    run(page, PROMPT)
    body = body_of(asked_by(page, tokens(page, "aligned").first.click))
    assert "continue_final_message" not in body and body["router"] == "aligned"
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_no_branch_inside_a_character(page: Page) -> None:
    with forced(page, choices=["ab 🐙 c"]):
        steps = steps_of(run(page, PROMPT)["baco"])
    assert text_of(page) == "ab 🐙 c"
    data = [bytes(each["bytes"]) for each in steps]
    inside = {
        index
        for index in range(len(data))
        if "\ufffd" in b"".join(data[:index]).decode("utf-8", "replace")
    }
    assert inside
    for index in range(len(data)):
        tokens(page).nth(index).focus()
        action = page.locator("#details").get_by_role("button", name="Branch here")
        expect(action).to_have_count(0 if index in inside else 1)
        if index in inside:
            expect(page.locator("#details tbody button")).to_have_count(0)
    tokens(page).nth(min(inside)).click()
    expect(page.locator("#branches")).to_be_hidden()


# -- the sweep -------------------------------------------------------------------------------------


def plain(text: str) -> str:
    kept = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P"))
    return " ".join(kept.split())


def sweep(page: Page) -> list[list[str]]:
    """Run the sweep, recount what it shows from the server's answers, and return their texts."""
    page.get_by_label("Prompt").fill(PROMPT)
    page.locator("#sweep > summary").click()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.get_by_role("button", name="Run the sweep").click()
    expect(page.get_by_role("status")).to_have_text("The sweep is done.")
    bodies = [body_of(request) for request in asked]
    assert [(body["gamma"], body["n"]) for body in bodies] == [(g / 5, 8) for g in range(6)]
    rows = page.get_by_role("table").get_by_role("row")
    every = []
    for place, request in enumerate(asked):
        response = request.response()
        assert response is not None
        texts = [choice["message"]["content"] for choice in response.json()["choices"]]
        groups: dict[str, list[str]] = {}
        for text in texts:
            groups.setdefault(plain(text), []).append(text.strip())
        row = rows.nth(place + 1)
        expect(row.get_by_role("rowheader")).to_have_text(f"{place / 5:.1f}")
        expect(row.get_by_role("cell").first).to_contain_text(f"{len(groups)} of 8")
        assert row.get_by_role("listitem").all_text_contents() == [
            same[0] + (f" ×{len(same)}" if len(same) > 1 else "") for same in groups.values()
        ]
        every.append(texts)
    return every


def test_sweep_counts_different_answers(page: Page) -> None:
    texts = sweep(page)
    assert len({*map(plain, texts[0])}) < len({*map(plain, texts[3])})
    heads = page.get_by_role("table").get_by_role("columnheader").all_text_contents()
    assert heads == ["Gamma", "Different", "Answers"]


def test_sweep_sees_through_case_and_punctuation(page: Page) -> None:
    with forced(page, choices=["Tea, please!", "tea please", "Two  teas"], temperature=50):
        texts = sweep(page)
    assert any(len({*each}) == 3 and len({*map(plain, each)}) == 2 for each in texts)


# -- links, code, keys -----------------------------------------------------------------------------


def test_link_restores_and_waits(page: Page, browser: Browser, served: Serving) -> None:
    page.get_by_label("Prompt").fill(NASTY)
    page.locator("#system-box > summary").click()
    given = {"system": "End with a wish.", "temperature": "0.5", "max_tokens": "20", "seed": "0"}
    for name, value in given.items():
        page.locator(f"#{name}").fill(value)
    set_gamma(page, 0)
    page.get_by_label("Router").select_option("h-punc")
    page.locator("#sweep > summary").click()
    page.locator("#samples").fill("3")
    page.locator("#samples").blur()
    expected = {**given, "prompt": NASTY, "gamma": "0", "router": "h-punc", "samples": "3"}
    with watched(browser, served) as other:
        asked: list[Request] = []
        other.on("request", lambda request: asked.append(request) if is_chat(request) else None)
        open_page(other, page.url)
        for name, value in expected.items():
            expect(other.locator(f"#{name}")).to_have_value(value)
        expect(other.locator("#sweep")).to_have_attribute("open", "")
        assert asked == []
        body = body_of(run(other)["baco"])
        assert body["messages"][0] == {"role": "system", "content": given["system"]}
        assert (body["gamma"], body["seed"]) == (0, 0)


def test_bad_links_do_no_harm(browser: Browser, served: Serving) -> None:
    with watched(browser, served, "cannot be parsed") as page:
        link = "#gamma=7&router=magic&temperature=cold&seed=-1&max_tokens=&pair=gone&__proto__=1"
        open_page(page, f"{served.url}/{link}")
        assert page.locator("#router").input_value() == "p-punc"
        assert page.locator("#temperature").input_value() == "0.7"
        assert page.locator("#seed").input_value() == "7"
        expect(page.get_by_role("alert")).to_have_text("The pair gone is not served here.")
        run(page, PROMPT)


def code_of(page: Page, language: str) -> str:
    if not page.locator("#code").get_attribute("open"):
        page.locator("#code").evaluate("panel => panel.open = true")
    page.get_by_label(language).check()
    return page.locator("#code-text").text_content() or ""


def test_copied_curl_gives_the_same_text(page: Page, browser: Browser) -> None:
    if shutil.which("curl") is None:
        pytest.skip("There is no curl.")
    run(page, NASTY)
    code = code_of(page, "curl")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == code
    answer = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    choice = json.loads(answer.stdout)["choices"][0]
    assert choice["message"]["content"] == text_of(page)


@pytest.mark.parametrize("language", ["LangChain", "LlamaIndex"])
def test_copied_python_gives_the_same_text(page: Page, language: str) -> None:
    pytest.importorskip("baco_integrations.remote")
    run(page, NASTY)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code_of(page, language), language, "exec"), {})
    assert said.getvalue() == text_of(page) + "\n"


def test_key_is_asked_for_and_stays_in_the_tab(browser: Browser) -> None:
    with serving(api_keys="s3cret") as locked, watched(browser, locked, "status of 401") as page:
        page.goto(locked.url)
        key = page.get_by_label("API key")
        expect(key).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
        page.get_by_label("Prompt").fill(PROMPT)
        for given in ("wrong", "s3cret"):
            key.fill(given)
            page.get_by_role("button", name="Use this key").click()
            if given == "wrong":
                expect(page.get_by_role("alert")).to_contain_text("key")
        expect(key).to_be_hidden()
        expect(page.get_by_label("Prompt")).to_have_value(PROMPT)  # nothing typed is lost
        asked = run(page)["baco"]
        assert asked.headers["authorization"] == "Bearer s3cret"
        for language in ("LangChain", "LlamaIndex", "curl"):
            code = code_of(page, language)
            assert "BACO_API_KEY" in code and "s3cret" not in code
            if language != "curl":
                compile(code, language, "exec")
        assert "s3cret" not in page.url and page.evaluate("localStorage.length") == 0


def test_errors_are_told_in_place(browser: Browser, served: Serving) -> None:
    with watched(browser, served, "status of 400") as page:
        open_page(page, served.url)
        run(page, PROMPT)
        before = text_of(page)
        page.get_by_label("Prompt").fill("word " * 5000)
        for _ in range(2):  # alerts do not pile up
            with page.expect_response(lambda response: is_chat(response.request)):
                page.get_by_role("button", name="Run", exact=True).click()
            for name in COLUMNS:
                expect(column(page, name).get_by_role("alert")).to_contain_text("context window")
        assert text_of(page) == before
        run(page, PROMPT)
        expect(page.get_by_role("alert")).to_have_count(0)


# -- safety and access -----------------------------------------------------------------------------


def test_markup_stays_text(page: Page) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    with forced(page, choices=[evil]):
        asked = run(page, evil)
        for name in COLUMNS:
            assert text_of(page, name) == evil
        asked_by(page, tokens(page).nth(2).click)
        for token in tokens(page).all():
            token.focus()
    assert body_of(asked["baco"])["messages"][0]["content"] == evil
    assert page.locator("main img, main script, #details img").count() == 0


def test_policy_lets_nothing_out(browser: Browser, served: Serving) -> None:
    policy = httpx.get(served.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    with watched(browser, served, "Content Security Policy") as page:
        open_page(page, served.url)
        assert page.evaluate("fetch('https://example.org').then(() => false, () => true)")


def test_keyboard_alone_is_enough(page: Page) -> None:
    page.get_by_label("Prompt").focus()
    page.keyboard.type(PROMPT)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text("Done.")
    focused = page.locator(":focus")
    for _ in range(30):  # on to the first token of BACo's answer
        page.keyboard.press("Tab")
        if focused.evaluate("at => at.matches('#baco-column .token')"):
            break
    expect(tokens(page).first).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")  # into the box
    assert focused.evaluate("at => at.closest('#details') !== null")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(tokens(page).nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    asked = asked_by(page, lambda: page.keyboard.press("Enter"))
    assert body_of(asked)["continue_final_message"]
    expect(tokens(page).nth(1)).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("branch 1")
    page.keyboard.press("Tab")  # on to the branch
    assert focused.evaluate("at => at.closest('#branches') !== null")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_accessibility(browser: Browser, served: Serving, width: int, scheme: Any) -> None:
    axe = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
    view: Any = {"width": width, "height": 800}
    with watched(browser, served, viewport=view, color_scheme=scheme) as page:
        open_page(page, served.url)
        page.evaluate(axe)
        check_access(page)
        run(page, PROMPT)
        asked_by(page, tokens(page).nth(4).click)
        for panel in ("sweep", "code"):
            page.locator(f"#{panel} > summary").click()
        page.get_by_role("button", name="Run the sweep").click()
        expect(page.get_by_role("status")).to_have_text("The sweep is done.")
        tokens(page).nth(5).focus()
        expect(page.locator("#details")).to_be_visible()
        check_access(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def check_access(page: Page) -> None:
    found = page.evaluate("axe.run()")["violations"]
    assert [
        (each["id"], each["impact"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []
