"""Symbols scored together: features bit for bit as alone, scores as in batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS
from cppncripto_strategy.models.scoring.batch import score_span
from cppncripto_strategy.models.scoring.feature_rounds import FeatureRounds
from cppncripto_strategy.models.scoring.macro_stream import MacroStream
from cppncripto_strategy.models.scoring.round_scorer import RoundScorer, ScoreStream

DAY = 24
NAMES = (*DEFAULT_COLUMNS, "taker_imbalance", "sin_week", "cos_week", *MARKET_COLUMNS)
# Symbol -> candles missing, candles without a trade, candles of one price, and its first candle.
SYMBOLS: dict[str, tuple[list[int], list[int], list[int], int]] = {
    "whole": ([], [], [], 0),
    "gaps": ([455, 500, 501, 20 * DAY - 1, *range(540, 548)], [], [], 0),
    "quiet": ([], [470, 471, 560], [], 0),
    "flat": ([], [], list(range(300, 480)), 0),
    "late": ([], [], [], 100),
}


def of(toy: Any, seed: int, name: str, days: int = 27) -> Any:
    """A symbol's grid; the missing rows of its beginning too."""
    missing, quiet, flat, first = SYMBOLS[name]
    candles = toy.candles(days=days, seed=seed)
    wave = 0.5 + 0.3 * np.sin(np.arange(len(candles)) / 7)
    columns = {n: getattr(candles, n).copy() for n in ("high", "low", "open", "volume")}
    columns["volume"][quiet] = 0.0
    for price in ("high", "low", "open"):
        columns[price][flat] = candles.close[flat]
    columns["taker_buy_volume"] = columns["volume"] * wave
    candles = dataclasses.replace(candles, **columns)
    keep = np.setdiff1d(np.arange(len(candles)), [*missing, *range(first)])
    return toy.grid(candles[keep])


def candle_of(grid: Any, row: int) -> np.ndarray:
    names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
    return np.array([getattr(grid, name)[row] for name in names])


def rounds(grids: dict[str, Any]) -> list[tuple[int, dict[str, int]]]:
    """Open times in order, with the row that each symbol has there."""
    start = min(grid.start_ms for grid in grids.values())
    end = max(grid.end_ms for grid in grids.values())
    step = next(iter(grids.values())).interval_ms
    found = []
    for open_ms in range(start, end, step):
        rows = {name: (open_ms - grid.start_ms) // step for name, grid in grids.items()}
        there = {n: r for n, r in rows.items() if 0 <= r < len(grids[n]) and grids[n].present[r]}
        found.append((open_ms, there))
    return found


@pytest.mark.parametrize("market", [False, True], ids=["alone", "beside a market"])
def test_features_of_a_round_are_the_bits_each_symbol_has_alone(toy: Any, market: bool) -> None:
    """A ring a candle behind, a level of another symbol, a gap or an untraded candle in a tree."""
    names = NAMES if market else NAMES[: -len(MARKET_COLUMNS)]
    settings = dataclasses.replace(toy.settings, names=names, market="M" if market else None)
    grids = {name: of(toy, seed, name) for seed, name in enumerate(SYMBOLS)}
    if market:
        beside = toy.candles(days=27, seed=9, missing=[430, *range(600, 610)])
        grids = {name: grid.with_market(beside) for name, grid in grids.items()}
    whole = {name: settings.table.compute(grid) for name, grid in grids.items()}
    timeline = toy.timeline(grids["whole"], settings, sessions=(4,))
    macros = {name: MacroStream(timeline) for name in SYMBOLS}
    together, from_rings = FeatureRounds(macros["whole"]), 0
    for open_ms, there in rounds(grids):
        for name, grid in grids.items():
            row = (open_ms - grid.start_ms) // grid.interval_ms
            if market and row >= 0 and grid.market.present[row]:
                macros[name].push_market(open_ms, candle_of(grid.market, row))
        for name, row in there.items():
            macros[name].push(open_ms, candle_of(grids[name], row))
        due = [macros[name] for name in there if macros[name].waits_for_one]
        if due:
            together.fill(due)
        from_rings += sum(not macro.waits_for_one for macro in due)
        for name, row in there.items():
            if not np.array_equal(macros[name].features(1)[0], whole[name][row], equal_nan=True):
                np.testing.assert_array_equal(macros[name].features(1)[0], whole[name][row], name)
    assert from_rings > 700


def play(streams: dict[str, ScoreStream], grids: dict[str, Any], cut: int, end: int) -> list[Any]:
    """Rounds cut..end: the scores of every symbol that has a candle."""
    lines = []
    for open_ms, there in rounds(grids)[cut:end]:
        for name, row in there.items():
            streams[name].macro.push(open_ms, candle_of(grids[name], row))
        lines.append({name: streams[name].update() for name in there})
    return lines


def streams_of(timeline: Any) -> dict[str, ScoreStream]:
    """A stream of each symbol, all scored together."""
    scorer = RoundScorer()
    return {name: ScoreStream(MacroStream(timeline), scorer) for name in SYMBOLS}


@pytest.mark.parametrize("head", ["classes", "regression"])
def test_scores_of_a_round_are_those_of_the_batch(toy: Any, head: str) -> None:
    """One symbol's scaler, embedding or ring used for another; a gap that shifts its neighbours."""
    grids = {name: of(toy, seed, name) for seed, name in enumerate(SYMBOLS)}
    timeline = toy.timeline(grids["whole"], toy.settings, sessions=(4, 7), head=head)
    lines = play(streams_of(timeline), grids, 0, len(rounds(grids)))
    for name, grid in grids.items():
        batch = score_span(name, grid, timeline)
        streamed = np.array([line[name] for line in lines if name in line])
        for column, line in enumerate(("score", "p_buy", "p_sell", "score_zero")):
            expected = getattr(batch, line)[grid.present]
            np.testing.assert_allclose(streamed[:, column], expected, atol=1e-5, err_msg=line)
        assert np.isfinite(streamed[:, 0]).sum() > 60


@pytest.mark.parametrize("cut", [470, 19 * DAY + 23, 20 * DAY, 545])
def test_symbols_restored_together_continue_to_the_bit(toy: Any, cut: int) -> None:
    """Rings that are put back at another place of the time axis, or of another symbol."""
    grids = {name: of(toy, seed, name) for seed, name in enumerate(SYMBOLS)}
    timeline = toy.timeline(grids["whole"], toy.settings, sessions=(4, 7))
    undisturbed, restarted = streams_of(timeline), streams_of(timeline)
    play(undisturbed, grids, 0, cut)
    for name, stream in undisturbed.items():
        macro, micro = stream.macro.snapshot(), stream.snapshot()
        restarted[name].macro.restore(macro)
        restarted[name].restore(micro)
    end = len(rounds(grids))
    expected, found = (play(one, grids, cut, end) for one in (undisturbed, restarted))
    assert str(expected) == str(found)


def test_a_round_is_scored_once_whoever_is_asked_first(toy: Any) -> None:
    """A candle that moves a ring twice because two symbols asked for it."""
    grids = {name: of(toy, seed, name) for seed, name in enumerate(SYMBOLS)}
    timeline = toy.timeline(grids["whole"], toy.settings, sessions=(4, 7))
    forwards, backwards = streams_of(timeline), streams_of(timeline)
    for open_ms, there in rounds(grids)[: 23 * DAY]:
        for name, row in there.items():
            for streams in (forwards, backwards):
                streams[name].macro.push(open_ms, candle_of(grids[name], row))
        one = {name: forwards[name].update() for name in there}
        other = {name: backwards[name].update() for name in reversed(there)}
        assert str(one) == str({name: other[name] for name in there})
        assert all(str(forwards[name].update()) == str(one[name]) for name in there)
