"""The pages in a real browser: headless Chromium, skipped where there is none."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cppncripto_strategy.desk.listing import Listing

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")

PATIENCE_MS = 30_000
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Watched:
    """A page, and all that went wrong on it."""

    def __init__(self, page: Any, port: int) -> None:
        self.page, self.base, self.wrong = page, f"http://127.0.0.1:{port}", []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(m.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self._sent(request.url))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))

    def _sent(self, url: str) -> None:
        if not url.startswith((f"{self.base}/", "data:", "blob:")):
            self.wrong.append(f"asks {url}")

    def sign_in(self, token: str) -> None:
        """Through the login page, as a person does."""
        self.page.goto(self.base)
        assert self.page.url == f"{self.base}/login"
        self.page.fill("#token", token)
        self.page.click("text=sign in")
        self.page.wait_for_url(f"{self.base}/")

    def chart(self) -> None:
        """Wait until a chart is drawn."""
        self.page.wait_for_selector(".chart .main-svg")

    def card(self, name: str, text: str) -> None:
        """Wait until a number of the session stands there."""
        card = self.page.locator(f".card:has(span:text-is('{name}')) b")
        playwright.expect(card).to_have_text(text, timeout=PATIENCE_MS)


@contextmanager
def opened(browser: Any, port: int, size: Any = DESK, scheme: str = "light") -> Iterator[Watched]:
    """A page of its own, without cookies of others."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    try:
        yield Watched(context.new_page(), port)
    finally:
        context.close()


def test_a_live_page_follows_its_session(browser, copy_of, token_file, token, desk, serving):
    """A page that stands still while candles, a gap and missed orders come, or after a restart."""
    [entry] = Listing(copy_of).of("session")
    with serving(copy_of, token_file) as port:
        pass  # the port is free again, and the next desk takes it
    with opened(browser, port) as watched:
        with serving(copy_of, token_file, port=port):
            watched.sign_in(token)
            watched.page.click("text=paper/real")
            watched.chart()
            watched.card("missed orders", "1")
            number = desk.rounds
            desk.append(entry.path, desk.round_records(number))
            watched.card("equity", f"{desk.equity(number):,.2f}")
            gap = {"t": desk.close_ms(number + 1), "c": {}, "g": ["AUSDT"]}
            desk.append(entry.path, {"rounds": [gap]})
            watched.card("gaps, withdrawn", "2, 0")
            assert watched.wrong == []
        playwright.expect(watched.page.locator("#link")).to_contain_text(
            "does not answer", timeout=PATIENCE_MS
        )
        desk.append(entry.path, desk.round_records(number + 2))
        with serving(copy_of, token_file, port=port):
            # Cookies live in the process: whoever looks signs in anew, and sees what came.
            watched.page.wait_for_url("**/login")
            watched.sign_in(token)
            watched.page.click("text=paper/real")
            watched.card("equity", f"{desk.equity(number + 2):,.2f}")


def test_a_first_picture_stands_there_before_plotly_does(
    browser, results, token_file, token, serving
):
    """Seconds of an empty page while four megabytes of script are read; two charts in one place."""
    with serving(results, token_file) as port, opened(browser, port) as watched:
        watched.sign_in(token)
        watched.page.route("**/static/plotly.js*", lambda _route: None)  # it does not come
        # Its event of loading waits for what is preloaded.
        watched.page.locator("text=paper/real").click(no_wait_after=True)
        candles = watched.page.locator("#chart .sketch path").first
        playwright.expect(candles).to_be_visible(timeout=PATIENCE_MS)
        drawn = watched.page.locator("#chart .sketch")
        playwright.expect(drawn).to_have_css("position", "absolute")  # the style sheet is there
        box = drawn.bounding_box()
        assert box["height"] > 600
        watched.page.unroute("**/static/plotly.js*")
        watched.page.goto(watched.page.url, wait_until="commit")
        watched.chart()
        playwright.expect(watched.page.locator(".sketch")).to_have_count(0, timeout=PATIENCE_MS)
        plot = watched.page.locator("#chart .main-svg").first.bounding_box()
        assert abs(plot["height"] - 60 - box["height"]) < 2
        assert watched.wrong == []


def test_a_lost_connection_is_seen(browser, copy_of, token_file, token, desk, serving):
    """A session that is cut off from the exchange and looks as if all were well."""
    [entry] = Listing(copy_of).of("session")
    lock = {"pid": os.getpid(), "host": platform.node()}
    (entry.path / ".lock").write_text(json.dumps(lock))
    desk.append(entry.path, {"events": [{"kind": "start", "at_ms": 1}]})
    with serving(copy_of, token_file) as port, opened(browser, port) as watched:
        watched.sign_in(token)
        watched.page.click("text=paper/real")
        for kind, more, shown in (
            ("connected", {"away_s": None}, "connected, 1"),
            ("connection_lost", {"reason": "OSError"}, "lost, 1"),
            ("connected", {"away_s": 9.0}, "connected, 2"),
        ):
            desk.append(entry.path, {"events": [{"kind": kind, "at_ms": 1, **more}]})
            watched.card("connection, reconnects", shown)
        assert watched.wrong == []


def test_runs_are_sorted_compared_and_opened(browser, results, token_file, token, serving):
    """A table that does not sort, a comparison of other runs, a report that cannot be opened."""
    with serving(results, token_file) as port, opened(browser, port) as watched:
        watched.sign_in(token)
        page = watched.page
        page.click("nav >> text=runs")
        head, cells = page.locator("th:text-is('Sharpe')"), page.locator("tbody tr td:nth-child(6)")
        for expected in (["1.50", "–", "–"], ["1.50", "–", "–"]):
            head.click()
            assert cells.all_inner_texts() == expected  # what is not known stays last
        page.locator("th:text-is('return')").click()
        assert page.locator("tbody tr td:nth-child(4)").first.inner_text() == "+20.00 %"
        for box in page.locator("input[name=run]").all()[:2]:
            box.check()
        page.click("button:text-is('compare')")
        watched.chart()
        assert "strategy.hold_candles" in page.inner_text("main")
        page.go_back()
        page.locator("tbody tr td a").first.click()
        page.click("text=Open the report")
        page.wait_for_selector("text=report")
        assert watched.wrong == []


def test_a_day_on_the_map_lists_the_days_like_it(
    browser, copy_of, token_file, token, embed_days, serving
):
    """A map that is a picture."""
    embed_days(copy_of)
    with serving(copy_of, token_file) as port, opened(browser, port) as watched:
        watched.sign_in(token)
        watched.page.click("nav >> text=days")
        watched.chart()
        watched.page.locator(".scatterlayer .point").nth(10).click(force=True)
        watched.page.wait_for_selector("#near h2")
        assert "Days like AUSDT" in watched.page.inner_text("#near h2")
        assert watched.page.locator("#near tbody tr").count() > 3
        assert watched.wrong == []


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (PHONE, "light"), (DESK, "dark")])
def test_pages_fit_and_are_legible(browser, results, token_file, token, serving, size, scheme):
    """A page that scrolls sideways on a phone, dark text on a dark ground."""
    listing = Listing(results)
    session, run = listing.of("session")[0].id, listing.of("run")[0].id
    with serving(results, token_file) as port, opened(browser, port, size, scheme) as watched:
        watched.sign_in(token)
        for path in ("/", f"/sessions/{session}", "/runs", f"/runs/{run}", "/data"):
            watched.page.goto(f"{watched.base}{path}")
            wide = watched.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"], path
            colours = watched.page.evaluate(
                "['color', 'backgroundColor'].map(n => getComputedStyle(document.body)[n])"
            )
            ink, ground = (sum(map(int, c[4:-1].split(", "))) for c in colours)
            assert (ink > ground) == (scheme == "dark")
        assert watched.wrong == []


def test_script_in_names_does_not_run(browser, copy_of, token_file, token, desk, serving):
    """A recipe's name that runs in the browser of whoever looks at its run."""
    script = "<img src=x onerror=alert(1)>"
    desk.make_run(copy_of / script / "20240401T000000Z", script, 4, 1.0)
    desk.make_run(copy_of / script / "20240402T000000Z", f"<script>alert(2)</script>{script}", 5, 1)
    runs = [entry.id for entry in Listing(copy_of).of("run") if "<img" in entry.name]
    with serving(copy_of, token_file) as port, opened(browser, port) as watched:
        watched.sign_in(token)
        watched.page.goto(f"{watched.base}/runs")
        watched.page.goto(f"{watched.base}/compare?run={runs[0]}&run={runs[1]}")
        watched.chart()
        assert watched.page.locator("img").count() == 0
        assert watched.wrong == []
