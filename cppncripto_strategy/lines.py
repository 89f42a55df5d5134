"""Backtrader lines read by bar number: while the run goes on, and as whole arrays afterwards.

Under runonce Backtrader does not move the index of nested indicators, so `line[0]` would be a value
from the end of the run; a line that keeps its past is read by position instead. Under exactbars
lines forget their past, and every bar is copied as it comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import RecipeError

Reader = Callable[[int], float]
"""Function from a bar number, 0-based and never beyond the present one, to a line's value."""

_UNBOUNDED = 0  # LineBuffer.mode of a line that keeps its whole past


def named_line(owner: Any, name: str) -> Any:
    """The line called `name` of an indicator or a feed, or None."""
    # No truth test on lines: while a strategy is built their operators make new lines.
    aliases = getattr(getattr(owner, "lines", None), "getlinealiases", tuple)
    return getattr(owner.lines, name) if name in aliases() else None


def score_line(score: Any) -> Any:
    """The line called score of an indicator, else its first line; a bare line is itself."""
    named = named_line(score, "score")
    return score.lines[0] if named is None else named


def line_reader(line: Any) -> Reader:
    """How to read a line at a bar; NaN where there is no line (None).

    A line that forgets its past is read at the present bar, whatever the number.
    """
    if line is None:
        return _nan_reader
    if line.mode == _UNBOUNDED:
        values = line.array
        return values.__getitem__  # type: ignore[no-any-return]
    return lambda _bar: float(line.array[line._idx])


def _nan_reader(_bar: int) -> float:
    return math.nan


def past_view(line: Any, bars: int) -> FloatArray:
    """As `past_values`, without a copy where the line keeps its whole past.

    A line cannot grow while somebody has a view of it: use it, and let go of it.
    """
    if line is None or line.mode != _UNBOUNDED or not 0 < bars <= len(line.array):
        return past_values(line, bars)
    return np.frombuffer(line.array, dtype=np.float64, count=bars)


def past_values(line: Any, bars: int) -> FloatArray:
    """The first `bars` values of a line, float64 (bars,); NaN where there is no line (None).

    Raises
    ------
    RecipeError
        When the line has forgotten some of them (exactbars).
    """
    if line is None:
        return np.full(bars, math.nan)
    # Sliced before numpy sees it: a live view would stop the buffer from growing.
    kept = line.array if line.mode == _UNBOUNDED else list(line.array)
    values = np.array(kept[:bars], dtype=np.float64)
    if len(values) < bars:
        raise RecipeError(
            f"a line kept {len(values)} of {bars} bars: run Cerebro without exactbars=1"
        )
    return values


_JUDGED = ("close", "score", "p_buy", "p_sell", "score_zero", "upper", "lower", "drift", "age")


class SymbolLines:
    """The lines that one symbol's decisions are made of; lives as long as the strategy.

    Names: stamp (Backtrader day number), close, score, p_buy, p_sell, score_zero, upper, lower,
    drift, age (ms) and traded, the line that is compared with the thresholds. Those that the
    indicators lack are NaN.
    """

    def __init__(self, data: Any, score: Any, threshold: Any, traded_line: str) -> None:
        macro = getattr(score, "macro", None)
        lines = {
            "stamp": data.lines.datetime,
            "close": data.lines.close,
            "score": score_line(score),
            "p_buy": named_line(score, "p_buy"),
            "p_sell": named_line(score, "p_sell"),
            "score_zero": named_line(score, "score_zero"),
            "upper": threshold.lines.upper,
            "lower": threshold.lines.lower,
            "drift": named_line(macro, "drift"),
            "age": named_line(macro, "age"),
        }
        lines["traded"] = lines["score"] if traded_line == "score" else lines.get(traded_line)
        self._lines = lines
        self._judged = [lines[name] for name in _JUDGED]
        self._readers: dict[str, Reader] = {}
        self._rows: list[tuple[float, ...]] = []  # only where a line forgets its past
        self.keeps_past = False

    def present(self) -> list[Any]:
        """The lines themselves, those that are there."""
        return [line for line in self._lines.values() if line is not None]

    def open(self) -> dict[str, Reader]:
        """Choose how each line is read; only possible once Cerebro has fixed their buffers."""
        self._readers = {name: line_reader(line) for name, line in self._lines.items()}
        self.keeps_past = all(line.mode == _UNBOUNDED for line in self.present())
        return self._readers

    def judged(self, bar: int) -> list[float]:
        """What a decision is recorded with at a bar, `_JUDGED`."""
        if self.keeps_past:
            return [self._readers[name](bar) for name in _JUDGED]
        lines = self._judged
        return [math.nan if line is None else float(line.array[line._idx]) for line in lines]

    def remember(self, bar: int) -> None:
        """Copy a bar whose lines will be forgotten."""
        self._rows.append(tuple(read(bar) for read in self._readers.values()))

    def rows(self, bars: int) -> int:
        """How many of the first `bars` bars `columns` has."""
        return bars if self.keeps_past else len(self._rows)

    def closes(self, bars: int) -> tuple[FloatArray, FloatArray]:
        """Stamps (Backtrader day numbers) and closes, as in `columns`."""
        if not self.keeps_past:
            columns = self.columns(bars)
            return columns["stamp"], columns["close"]
        return past_view(self._lines["stamp"], bars), past_view(self._lines["close"], bars)

    def columns(self, bars: int) -> dict[str, FloatArray]:
        """Every line over the first `bars` bars, (bars,) each; of bars not remembered, nothing.

        They are views where lines keep their past; see `past_view`.
        """
        if self.keeps_past:
            return {name: past_view(line, bars) for name, line in self._lines.items()}
        table = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), len(self._lines))
        return {name: table[:, i] for i, name in enumerate(self._lines)}
