"""docs/explanations/: the numbers that a page states are those that the code computes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation.signals import Yardstick, signal_quality
from cppncripto_strategy.feeds import planted_hits
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.planted import PlantedSettings
from cppncripto_strategy.paths import shipped_recipes
from cppncripto_strategy.recipe import load_recipe

FOLDER = Path(__file__).parents[2] / "docs" / "explanations"


def table(page: str) -> dict[str, list[float]]:
    """First column -> numbers of the others, of a page's only table of percentages."""
    rows = re.findall(r"^\| ([^|]+) \| (.+ %) \|$", (FOLDER / page).read_text("utf-8"), re.M)
    return {name: [float(cell.strip(" %")) for cell in rest.split("|")] for name, rest in rows}


def test_what_can_be_reached_in_the_demo_is_what_the_page_says() -> None:
    """A market that was changed, and a page with the ceilings of the old one."""
    recipe = load_recipe(shipped_recipes()["demo"])
    planted = recipe.candles.planted
    market = PlantedSettings(
        days=planted.days, mu=planted.mu, sigma=planted.sigma, tau_days=planted.tau_days,
        setup_rate=planted.setup_rate, marker_fidelity=planted.marker_fidelity,
    )  # fmt: skip
    accuracy = planted_hits.marker_filter_accuracy(market, 5)
    reached = [
        planted_hits.oracle_hit(market),
        planted_hits.macro_hit(market, accuracy),
        planted_hits.micro_only_hit(market, recipe.micro.short_window),
        0.5,
    ]
    stated = [numbers[0] for numbers in table("two-clocks.md").values()]
    assert stated == [round(100 * hit, 1) for hit in reached]


def test_break_even_is_what_the_report_would_say() -> None:
    """A formula on the page that is not the one by which signals are judged."""
    rows = table("costs.md")
    assert list(rows) == ["20 bps", "40 bps", "80 bps", "160 bps"]
    for move, stated in rows.items():
        for cost, percent in zip((22.0, 12.0, 4.0), stated, strict=True):
            hit = break_even(float(move.removesuffix(" bps")), cost)
            assert percent == pytest.approx(100 * hit, abs=0.051)


def break_even(move_bps: float, cost_bps: float) -> float:
    """Of signals after each of which the price moves by so much, up and down in turns."""
    count = 40
    steps = 1.0 + 1e-4 * move_bps * np.where(np.arange(count) % 2, 1.0, -1.0)
    signals = pd.DataFrame(
        {
            "symbol": "X",
            "close_time_ms": utc_to_ms("2024-01-01") + 300_000 * np.arange(1, count + 1),
            "close": 100.0 * np.cumprod(steps),
            "score": 1.0,
            "signal": 1,
            "upper": 0.5,
            "lower": -0.5,
        }
    )
    judged = signal_quality(signals, Yardstick(1, 300_000, cost_bps, resamples=0))
    assert judged.both.break_even_hit_ratio is not None
    return judged.both.break_even_hit_ratio


def test_the_costs_of_the_page_are_the_defaults() -> None:
    """Another fee by default, and a page that computes with the old one."""
    broker = load_recipe(shipped_recipes()["demo"]).broker
    assert 2 * (broker.fee_bps + broker.slippage_bps) == 22
