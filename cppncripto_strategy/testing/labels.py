"""Contract tests of a kind of label: it says how far it looks, never guesses, and has a sign.

`check_label` runs them all on random candles with gaps. Left out: whether a label can be learned.

Examples
--------
>>> from cppncripto_strategy.testing.labels import check_label
>>> check_label("fixed", {"threshold_bps": 10.0})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels import LABELS, Costs, LabelKind, Labels, label_options
from cppncripto_strategy.testing.grids import (
    VALUES,
    changed_from,
    mirrored,
    random_grid,
    same_bits,
    with_hole,
)
from cppncripto_strategy.testing.options import check_refuses_unknown

SIZE = 1_200
MIRRORED_SHARE = 0.9
"""Of the candles called a move in either market, at least so many have the other sign in the other.

Ranges and costs in price units are mirrored only nearly.
"""


def check_label(
    kind: str | type[LabelKind],
    options: Mapping[str, Any] | None = None,
    horizon: int = 6,
    seed: int = 0,
) -> None:
    """Every check of this module.

    Parameters
    ----------
    kind : the class, or the name it is registered by.
    options : plain values, as a recipe has them.
    horizon : candles ahead.
    seed : of the random market.

    Raises
    ------
    AssertionError
        When a promise is broken; the message says which, and what was found.
    RecipeError
        When the kind or an option is unknown, or a value is impossible.
    """
    label = _build(kind, options or {}, horizon)
    grid = with_hole(random_grid(SIZE, seed, missing=0.01), SIZE // 3, SIZE // 3 + 5)
    check_form(label, grid)
    check_purge(label, grid)
    check_end(label, grid)
    check_gaps(label, grid)
    check_sign(label, random_grid(SIZE, seed + 1))
    check_options(kind)


def check_form(label: LabelKind, grid: CandleGrid) -> None:
    """One label per candle, +1, -1 or 0; the same each time; candles untouched; empty grids too."""
    before = {name: getattr(grid, name).copy() for name in VALUES}
    labels, again = label.compute(grid), label.compute(grid)
    for name in ("target", "forward_return", "valid"):
        values = getattr(labels, name)
        _require(values.shape == (len(grid),), f"gives {name} of shape {values.shape}")
    _require(_same(labels, again, slice(None)), "gives other labels for the same candles again")
    for name, values in before.items():
        _require(same_bits(values, getattr(grid, name)), f"changes the {name} of the candles")
    _require(set(np.unique(labels.target)) <= {-1, 0, 1}, "has targets other than +1, -1 and 0")
    _require(not labels.target[~labels.valid].any(), "has a target where it is not valid: not 0")
    known = np.isfinite(labels.forward_return)
    _require(
        bool((known == labels.valid).all()), "has a return where it is not valid, or lacks one"
    )
    _require(bool(labels.valid.any()), "is valid nowhere")
    _require(labels.horizon >= 1, f"declares a horizon of {labels.horizon} candles")
    for rows in (0, 1, 2):
        label.compute(grid.rows(0, rows))


def check_purge(label: LabelKind, grid: CandleGrid) -> None:
    """No label reads a candle beyond the horizon it declares: so many are purged, and no more."""
    labels = label.compute(grid)
    for cut in _cuts(grid):
        other = label.compute(changed_from(grid, cut))
        kept = slice(0, max(0, cut - labels.horizon))
        _require(
            _same(labels, other, kept),
            f"differs before row {cut - labels.horizon} when the candles from row {cut} on differ:"
            f" it reads further than the {labels.horizon} candles it declares, and training would"
            " see what validation is judged on",
        )


def check_end(label: LabelKind, grid: CandleGrid) -> None:
    """What is not there yet is not guessed."""
    whole = label.compute(grid)
    for cut in _cuts(grid):
        short = label.compute(grid.rows(0, cut))
        known = max(0, cut - whole.horizon)
        _require(
            _same(whole, short, slice(0, known)), f"differs in the past when row {cut} is the end"
        )
        _require(
            not short.valid[known:].any(),
            f"is valid in the last {whole.horizon} rows, whose candles are not all there",
        )


def check_gaps(label: LabelKind, grid: CandleGrid) -> None:
    """A label that spans a missing candle is not valid."""
    labels = label.compute(grid)
    missing = np.concatenate([[0], np.cumsum(~grid.present)])
    rows = np.flatnonzero(labels.valid)
    spanned = missing[np.minimum(rows + labels.horizon + 1, len(grid))] - missing[rows]
    wrong = rows[spanned > 0]
    _require(not len(wrong), f"is valid in {len(wrong)} rows whose span lacks a candle")


def check_sign(label: LabelKind, grid: CandleGrid) -> None:
    """In a mirrored market buy and sell change places."""
    labels, other = label.compute(grid), label.compute(mirrored(grid))
    both = labels.valid & other.valid
    moves = both & ((labels.target != 0) | (other.target != 0))
    _require(bool(moves.any()), "calls nothing a move on random candles of 20 bps each")
    share = float(np.mean(labels.target[moves] == -other.target[moves]))
    _require(
        share >= MIRRORED_SHARE,
        f"keeps its promise of a sign in {share:.0%} of the moves of a mirrored market: expected"
        f" {MIRRORED_SHARE:.0%}. Training mirrors sessions, so buy and sell must change places",
    )


def check_options(kind: str | type[LabelKind]) -> None:
    """An unknown option and a horizon of nothing are refused."""
    check_refuses_unknown("label", lambda options: _read(kind, options))
    try:
        _build(kind, {}, 0)
    except RecipeError:
        return
    raise AssertionError("the label takes a horizon of 0 candles")


def _cuts(grid: CandleGrid) -> tuple[int, ...]:
    third = len(grid) // 3
    return (17, third + 2, third + 101, 2 * third, len(grid) - 3)


def _same(first: Labels, second: Labels, rows: slice) -> bool:
    return (
        np.array_equal(first.target[rows], second.target[rows])
        and np.array_equal(first.valid[rows], second.valid[rows])
        and same_bits(first.forward_return[rows], second.forward_return[rows])
    )


def _build(kind: str | type[LabelKind], options: Mapping[str, Any], horizon: int) -> LabelKind:
    made = LABELS.get(kind) if isinstance(kind, str) else kind
    return made(horizon, _read(kind, options), Costs())


def _read(kind: str | type[LabelKind], options: Mapping[str, Any]) -> Any:
    if isinstance(kind, str):
        return label_options(kind, options)
    return kind.Options.read(options, f"label {kind.__name__}")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"the label {what}")
