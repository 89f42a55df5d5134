"""Pictures of the pages, drawn by the package when the site is built, never committed.

Each is a function of the code and of a planted market, so the same state of the code gives the same
picture; it is kept under `.cache/site/` until that state changes. A picture that cannot be drawn
stops the build with its name.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cppncripto_strategy.atomic import write_bytes
from cppncripto_strategy.codehash import closure_digest
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "site"
TUTORIAL = ROOT / "docs" / "tutorials" / "first-feature.md"
# Readable on a light page and on a dark one: the ground is transparent.
INK, MACRO, MICRO, GRID = "#808890", "#00897b", "#e07b00", "#80889055"


class PictureError(RuntimeError):
    """A picture of a page that cannot be drawn; the message says which one, and why."""


def drawn(name: str) -> Path:
    """The file of a picture, drawn now where the code has changed since it was.

    Raises
    ------
    PictureError
        When there is no such picture, or drawing it failed.
    """
    if name not in PICTURES:
        raise PictureError(f"no picture {name!r}: pictures.py draws {', '.join(PICTURES)}")
    draw, parts = PICTURES[name]
    texts = (Path(__file__).read_text("utf-8"), closure_digest(*parts), str(titled(TUTORIAL)))
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    path = CACHE / f"{digest}-{name}"
    if not path.is_file():
        try:
            content = draw()
        except Exception as error:
            raise PictureError(f"picture {name!r}: {type(error).__name__}: {error}") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"*-{name}"):
            old.unlink()
        write_bytes(path, content)
    return path


def titled(page: Path) -> dict[str, str]:
    """Files that a page has its reader write: blocks with a title, by that title."""
    blocks = re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', page.read_text("utf-8"), re.S)
    return dict(blocks)


def figure(width: float, height: float) -> tuple[Any, Any]:
    """(figure, axis) without a ground, in colours for both palettes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, style(fig.subplots())


def style(axis: Any) -> Any:
    """An axis in colours for both palettes."""
    axis.set_facecolor("none")
    axis.tick_params(colors=INK, labelsize=9)
    axis.grid(color=GRID, linewidth=0.6)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
    return axis


def svg(fig: Any) -> bytes:
    """A figure as SVG, the same bytes every time."""
    import matplotlib

    content = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "site"}):
        fig.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return content.getvalue()


def two_clocks() -> bytes:
    """Eight days of a planted market, with what each network reads at one decision."""
    candles = generate(PlantedSettings(days=8, interval="15m", seed=4, sigma=0.004)).candles
    stamps = candles.open_time + 15 * 60_000
    rollover = int(stamps[0] // DAY_MS * DAY_MS) + 7 * DAY_MS
    now = rollover + 13 * HOUR_MS
    rows = stamps <= now + 4 * HOUR_MS
    hours = (stamps[rows] - rollover) / HOUR_MS
    fig, axis = figure(9.5, 3.6)
    axis.plot(hours, candles.close[rows], color=INK, linewidth=1.0)
    axis.axvspan(-120, 0, color=MACRO, alpha=0.16, linewidth=0)
    axis.axvspan(8, 13, color=MICRO, alpha=0.28, linewidth=0)
    axis.axvline(0, color=MACRO, linewidth=1.4)
    axis.axvline(13, color=MICRO, linewidth=1.4)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.28 * (high - low))
    for x, where, text, colour in (
        (-118, "left", "MacroNet reads five days, once, at 00:00 UTC", MACRO),
        (14, "left", "MicroNet reads five\nhours, at every candle", MICRO),
    ):
        axis.text(
            x, high + 0.25 * (high - low), text, color=colour, ha=where, va="top", fontsize=11
        )
    axis.set_xlim(-132, 48)
    axis.set_xlabel("hours since the rollover", color=INK, fontsize=9)
    axis.set_ylabel("price", color=INK, fontsize=9)
    return svg(fig)


def break_even() -> bytes:
    """The hit ratio that just pays, by the mean move at the signals, for three round trips."""
    moves = np.linspace(10, 200, 400)
    fig, axis = figure(9.5, 3.6)
    for cost, colour in ((22.0, MACRO), (12.0, INK), (4.0, MICRO)):
        label = f"round trip of {cost:.0f} bps"
        hits = 100 * (0.5 + cost / (2 * moves))
        axis.plot(moves, hits, color=colour, linewidth=1.8, label=label)
    axis.legend(frameon=False, fontsize=10, labelcolor="linecolor")
    axis.set_xlim(10, 200)
    axis.set_ylim(50, 100)
    axis.set_xlabel("mean absolute move at the signals, one horizon later, bps", color=INK)
    axis.set_ylabel("break-even hit ratio, %", color=INK)
    return svg(fig)


def own_feature() -> bytes:
    """The picture of the run of the tutorial on an own feature."""
    from cppncripto_strategy import load_recipe, run_backtest
    from cppncripto_strategy.reports.picture import save_picture

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in titled(TUTORIAL).items():
            (folder / file).write_text(text, "utf-8")
        result = run_backtest(load_recipe(folder / "mine.toml"), folder / "results")
        save_picture(folder / "picture.png", result)
        return (folder / "picture.png").read_bytes()


# Name -> what draws it, and the modules that it follows from.
PICTURES: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "two-clocks.svg": (two_clocks, ("cppncripto_strategy.feeds.planted",)),
    "break-even.svg": (break_even, ("cppncripto_strategy.feeds.clock",)),
    "own-feature.png": (
        own_feature,
        ("cppncripto_strategy.backtest", "cppncripto_strategy.reports.picture"),
    ),
}
