"""The documentation site: it builds without a warning, and its pages ask no other host.

Needs the extra `docs`; `CPPN_BT_SITE` may name a site that is built already. What a browser says of
the pages is skipped where there is no Chromium.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs"),
]
ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# Of each kind one: pictures and code, docstrings, wide tables, a notebook.
LOOKED_AT = (
    "tutorials/first-feature.html",
    "reference/python.html",
    "recipe.html",
    "notebooks/first-look.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: any warning is a failure."""
    if built := os.environ.get("CPPN_BT_SITE"):
        return Path(built)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_and_every_picture_is_there(site: Path) -> None:
    """A page that is written and not built; a marker that nothing filled in."""
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        built = (site / name.replace("README.html", "index.html")).read_text("utf-8")
        assert not re.search(r"<!-- (include|commands|notebook|picture)", built), name
    for picture in ("two-clocks.svg", "break-even.svg", "own-feature.png"):
        assert (site / "pictures" / picture).stat().st_size > 5_000
    assert 'class="doc doc-heading"' in (site / "reference" / "python.html").read_text("utf-8")
    assert "cppn-bt paper" in (site / "reference" / "commands.html").read_text("utf-8")


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """A font, a script or a picture of another host, which learns who reads what."""
    loaded = re.compile(r'<(?:script|img|iframe|source)[^>]+src="?([^" >]+)|<link[^>]+>')
    for page in site.rglob("*.html"):
        for match in loaded.finditer(page.read_text("utf-8")):
            text = match.group(1) or match.group()
            if "rel=canonical" in text or 'rel="canonical"' in text:
                continue
            assert "//" not in text.replace("data:", ""), (page.name, text)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_parts: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def base(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [(DESK, "light"), (DESK, "dark"), (PHONE, "light")],
    ids=["light", "dark", "phone"],
)
def test_pages_open_without_an_error_and_fit(
    browser: Any, base: str, size: dict[str, int], scheme: str
) -> None:
    """A console error, a request to another host, or a page wider than a phone."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    wrong: list[str] = []
    page = context.new_page()
    page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: r.url.startswith((base, "data:", "blob:")) or wrong.append(r.url))
    page.on("response", lambda r: r.status >= 400 and wrong.append(f"{r.status} {r.url}"))
    for name in LOOKED_AT:
        page.goto(f"{base}/{name}", wait_until="load")
        palette = page.locator("body").get_attribute("data-md-color-scheme")
        assert palette == ("slate" if scheme == "dark" else "default")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], f"{name} is {width} wide"
    context.close()
    assert wrong == []


def test_search_finds_a_word_of_a_page(browser: Any, base: str) -> None:
    """A search whose index or worker is not there."""
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    page.goto(f"{base}/index.html")
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").fill("quarantine")
    hit = page.locator(".md-search-result__link").first
    hit.wait_for(timeout=30_000)
    assert "quarantine" in hit.inner_text().lower()
    context.close()
