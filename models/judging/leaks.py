"""Leak checks: is any output made from candles that had not closed yet?

Each check runs a callable twice on candles that share a past and compares what it said about that
past. The callable maps a `CandleGrid` of T rows to one row of output for each candle, (T,) or
(T, ...), where row i is what was known when candle i closed: features, scaled features, embeddings
held over their sessions (`hold_sessions`), scores, thresholds, signals.

- prefix: the future is cut off. Catches centred windows and statistics over the whole span.
- perturbation: the future becomes another market. Catches what looks ahead by value, not by length.
- start-invariance: the past begins later. Catches back-filled warm-ups and state without an end.
- embedding time-shift: the data that an embedding is made from ends at its midnight, or later that
  day. Catches an embedding that sees the day it is used on.

Cuts are made in the middle of sessions: a cut at midnight cannot see an embedding, or a scaler,
that was made from its own day.

Left out: statistical checks of what a model earned (shuffled labels, null market, ceiling), which
need training; and labels, which read the future by definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.models.inputs.grid import CandleGrid

CandleFunction = Callable[[CandleGrid], NDArray[np.floating]]
EmbedFunction = Callable[[CandleGrid], tuple[IntArray, NDArray[np.floating]]]
Tolerance = float | FloatArray

PREFIX = "prefix"
PERTURBATION = "perturbation"
START_INVARIANCE = "start-invariance"
TIME_SHIFT = "embedding time-shift"

# Shares of a session at which the checks cut, in turn: never at its start.
_SESSION_SHARES = (0.61, 0.27, 0.93, 0.44, 0.08, 0.77)
# Deviation of the perturbed market's log price, per candle: large beside any real one's.
_PERTURBED_DEVIATION = 0.02
_PERTURBED_MISSING = 0.03


@dataclass(frozen=True, slots=True)
class LeakVerdict:
    """What one check found about one output.

    Parameters
    ----------
    name : the check, such as "prefix".
    passed : whether nothing leaked, and there was something that could have.
    detail : one sentence for a person.
    first_offending_time_ms : close time of the earliest candle whose output changed, UTC
        milliseconds; None when the check passed or saw nothing.
    first_offending_value : that output with the future (or the longer past) known; None likewise.
    subject : what was checked, such as "features".
    """

    name: str
    passed: bool
    detail: str
    first_offending_time_ms: int | None = None
    first_offending_value: float | None = None
    subject: str = ""


@dataclass(frozen=True, slots=True)
class _Difference:
    """The first place where two runs disagree about the same candle."""

    close_time_ms: int
    column: tuple[int, ...]
    whole: float
    other: float


def check_prefix(
    subject: str,
    function: CandleFunction,
    grid: CandleGrid,
    cuts: Sequence[int] | None = None,
    tolerance: Tolerance = 0.0,
    names: Sequence[str] | None = None,
) -> LeakVerdict:
    """Cut the future off: every output before the cut must stay as it was.

    Parameters
    ----------
    subject : what is checked, for the verdict.
    function : the output for each candle of a grid, see the module's docstring.
    grid : candles, long enough that outputs are defined before the cuts.
    cuts : rows; candles from there on are cut off. Default: `mid_session_cuts(grid)`.
    tolerance : largest difference that is rounding, one number or one for each column; 0 demands
        the same value. NaN equals only NaN.
    names : of the columns, for the verdict; numbers when None.

    Returns
    -------
    LeakVerdict; not passed, too, when every compared output is NaN, since nothing was checked.
    """
    rows = mid_session_cuts(grid) if cuts is None else cuts
    whole = _run(function, grid)
    found, compared = None, 0
    for cut in sorted(rows):
        alone = _run(function, grid.rows(0, cut))
        compared += _count_known(whole[:cut])
        found = _earlier(found, _first_difference(grid, 0, whole[:cut], alone, tolerance))
    words = f"with the future, and {{other}} when the candles end at one of {len(rows)} cuts"
    return _verdict(PREFIX, subject, found, compared, words, names)


def check_perturbation(
    subject: str,
    function: CandleFunction,
    grid: CandleGrid,
    cuts: Sequence[int] | None = None,
    seed: int = 0,
    tolerance: Tolerance = 0.0,
    responds: bool = True,
    names: Sequence[str] | None = None,
) -> LeakVerdict:
    """Replace the future by another market: every output before the cut must stay as it was.

    Parameters as `check_prefix`, and

    seed : of the other market.
    responds : whether some output from a cut on must change, which proves that the callable looks
        at the candles it is given; False for a clock.
    """
    rows = mid_session_cuts(grid) if cuts is None else cuts
    whole = _run(function, grid)
    found, compared, moved = None, 0, False
    for k, cut in enumerate(sorted(rows)):
        other = _run(function, perturb_from(grid, cut, seed + k))
        compared += _count_known(whole[:cut])
        moved |= not np.array_equal(whole[cut:], other[cut:], equal_nan=True)
        found = _earlier(found, _first_difference(grid, 0, whole[:cut], other[:cut], tolerance))
    if responds and not moved and found is None:
        detail = f"{subject}: another market after the cuts changed nothing at all, so the output"
        return LeakVerdict(
            PERTURBATION, False, f"{detail} does not read the candles it is given", subject=subject
        )
    words = f"in this market, and {{other}} when another follows one of {len(rows)} cuts"
    return _verdict(PERTURBATION, subject, found, compared, words, names)


def check_start_invariance(
    subject: str,
    function: CandleFunction,
    grid: CandleGrid,
    memory: int,
    starts: Sequence[int] | None = None,
    tolerance: Tolerance = 0.0,
    names: Sequence[str] | None = None,
) -> LeakVerdict:
    """Begin later: after `memory` candles every output must be what the longer past gave.

    Parameters as `check_prefix`, and

    memory : candles that an output may depend on, its own included; earlier rows of a late start
        are its warm-up and are not compared.
    starts : first rows of the late starts. Default: three, mid-session, that leave rows to compare.
    """
    last = len(grid) - memory
    if starts is None:
        starts = mid_session_cuts(grid.rows(0, max(0, last)))
    whole = _run(function, grid)
    found, compared = None, 0
    for start in sorted(starts):
        first = start + memory - 1
        late = _run(function, grid.rows(start, len(grid)))[memory - 1 :]
        compared += _count_known(whole[first:])
        found = _earlier(found, _first_difference(grid, first, whole[first:], late, tolerance))
    words = f"from the first candle on, and {{other}} from one of {len(starts)} later starts"
    return _verdict(START_INVARIANCE, subject, found, compared, words, names)


def check_all(
    subject: str,
    function: CandleFunction,
    grid: CandleGrid,
    memory: int,
    seed: int = 0,
    tolerance: Tolerance = 0.0,
) -> list[LeakVerdict]:
    """The three checks with their default cuts, in the order of the module's docstring."""
    return [
        check_prefix(subject, function, grid, tolerance=tolerance),
        check_perturbation(subject, function, grid, seed=seed, tolerance=tolerance),
        check_start_invariance(subject, function, grid, memory, tolerance=tolerance),
    ]


def check_embeddings(
    subject: str,
    embed: EmbedFunction,
    grid: CandleGrid,
    sessions: int = 3,
    tolerance: Tolerance = 0.0,
) -> LeakVerdict:
    """Shift the end of the data through a session: its embedding must never notice.

    Parameters
    ----------
    embed : the embeddings of a grid's sessions: valid_from_ms int64 (D,), the session's 00:00 UTC,
        and values (D, E), NaN where a session has none.
    sessions : how many sessions, spread over those with an embedding, are tried.
    tolerance : as in `check_prefix`.

    Returns
    -------
    LeakVerdict. Each tried session is embedded again from candles that close by its midnight, and
    by three later times of its day; not passed, too, when no session has an embedding.
    """
    starts, values = embed(grid)
    known = np.flatnonzero(~np.isnan(values).any(axis=1)) if len(values) else np.empty(0, np.int64)
    if len(known):
        known = np.unique(known[np.linspace(0, len(known) - 1, sessions).astype(int)])
    found, compared = None, 0
    for d in known:
        start, whole = int(starts[d]), np.asarray(values[d : d + 1], dtype=np.float64)
        midnight = grid.row_of(start)  # the candle before it closes at 00:00
        for share in (0.0, *_SESSION_SHARES[:3]):
            end = min(midnight + int(share * DAY_MS / grid.interval_ms), len(grid))
            again = _embedding_of(embed, grid.rows(0, end), start, whole)
            compared += whole.size
            unlike = _first_difference(grid, midnight - 1, whole, again, tolerance)
            found = _earlier(found, unlike)
    words = f"with its own day known, and {{other}} without ({len(known)} days tried)"
    return _verdict(TIME_SHIFT, subject, found, compared, words, None)


def _embedding_of(
    embed: EmbedFunction, grid: CandleGrid, valid_from_ms: int, like: FloatArray
) -> FloatArray:
    """The embedding (1, E) that a grid gives a session; NaN when it gives none."""
    starts, values = embed(grid)
    match = np.flatnonzero(starts == valid_from_ms)
    if len(match) == 0:
        return np.full_like(like, np.nan)
    return np.asarray(values[match[:1]], dtype=np.float64)


def mid_session_cuts(grid: CandleGrid, count: int = 3, first_row: int = 0) -> list[int]:
    """Up to `count` rows spread over [first_row, T), each in the middle of a UTC day.

    Cuts sit at different hours, never at a session's first candle (the one closing at 00:00), so
    that both halves of a session are seen.
    """
    size, session = len(grid), max(1, DAY_MS // grid.interval_ms)
    first_close = (grid.start_ms + grid.interval_ms) % DAY_MS // grid.interval_ms
    cuts: set[int] = set()
    for k in range(count):
        row = first_row + (size - first_row) * (k + 1) // (count + 1)
        share = _SESSION_SHARES[k % len(_SESSION_SHARES)]
        session_start = row - (row + first_close) % session
        cut = session_start + max(1, int(share * session))
        while cut >= size:
            cut -= session
        if first_row < cut < size:
            cuts.add(cut)
    return sorted(cuts)


def perturb_from(grid: CandleGrid, row: int, seed: int) -> CandleGrid:
    """The grid with another market from `row` on: other prices, other volumes, other gaps.

    Each candle stays a valid candle; rows before `row` keep their bits. A market symbol beside the
    candles becomes another one, too.
    """
    rng = np.random.default_rng(seed)
    size = max(0, len(grid) - row)
    price = np.exp(np.cumsum(rng.normal(0, _PERTURBED_DEVIATION, size)))
    amount = rng.lognormal(1.0, 1.5, size)
    lost = rng.random(size) < _PERTURBED_MISSING

    def changed(values: FloatArray, factor: FloatArray) -> FloatArray:
        future = np.where(lost, np.nan, values[row:] * factor)
        return np.concatenate([values[:row], future])

    return replace(
        grid,
        open=changed(grid.open, price),
        high=changed(grid.high, price),
        low=changed(grid.low, price),
        close=changed(grid.close, price),
        volume=changed(grid.volume, amount),
        taker_buy_volume=changed(grid.taker_buy_volume, amount),
        present=np.concatenate([grid.present[:row], grid.present[row:] & ~lost]),
        market=None if grid.market is None else perturb_from(grid.market, row, seed + 1_000_003),
    )


def hold_sessions(
    grid: CandleGrid, valid_from_ms: IntArray, values: NDArray[np.floating]
) -> FloatArray:
    """Values of sessions, held over the candles they are active for.

    Parameters
    ----------
    grid : candles, T rows.
    valid_from_ms : int64 array (D,), increasing: values[d] is used by candles that close at or
        after it, until the next one.
    values : array (D, ...), such as embeddings or scaler centers.

    Returns
    -------
    float64 array (T, ...), NaN before the first.
    """
    session = np.searchsorted(valid_from_ms, grid.close_time, side="right") - 1
    held = np.full((len(grid), *values.shape[1:]), np.nan)
    held[session >= 0] = values[session[session >= 0]]
    return held


# --- helpers ------------------------------------------------------------------------------------


def _run(function: CandleFunction, grid: CandleGrid) -> FloatArray:
    output = np.asarray(function(grid), dtype=np.float64)
    if output.ndim == 0 or len(output) != len(grid):
        raise ValueError(
            f"a checked function must give one row for each of the {len(grid)} candles,"
            f" found an output of shape {output.shape}"
        )
    return output


def _count_known(output: FloatArray) -> int:
    return int(np.count_nonzero(~np.isnan(output)))


def _first_difference(
    grid: CandleGrid, first_row: int, whole: FloatArray, other: FloatArray, tolerance: Tolerance
) -> _Difference | None:
    """The earliest candle, from `first_row`, where two outputs (n, ...) differ; None when none."""
    unlike = np.isnan(whole) != np.isnan(other)
    with np.errstate(invalid="ignore"):
        unlike |= ~(np.isnan(whole) | (whole == other) | (np.abs(whole - other) <= tolerance))
    if not unlike.any():
        return None
    row, *column = (int(i) for i in np.unravel_index(np.argmax(unlike), unlike.shape))
    close_time_ms = grid.start_ms + (first_row + row + 1) * grid.interval_ms
    place = (row, *column)
    return _Difference(close_time_ms, tuple(column), float(whole[place]), float(other[place]))


def _earlier(a: _Difference | None, b: _Difference | None) -> _Difference | None:
    if a is None or b is None:
        return a or b
    return a if a.close_time_ms <= b.close_time_ms else b


def _column_words(column: tuple[int, ...], names: Sequence[str] | None) -> str:
    if not column:
        return ""
    if names is not None and len(column) == 1:
        return f" {names[column[0]]}"
    return f" column {', '.join(map(str, column))}"


def _verdict(
    name: str,
    subject: str,
    found: _Difference | None,
    compared: int,
    words: str,
    names: Sequence[str] | None,
) -> LeakVerdict:
    if found is not None:
        when = ms_to_utc(found.close_time_ms)
        column = _column_words(found.column, names)
        story = words.format(other=f"{found.other:.9g}")
        detail = f"{subject}{column} at the close of {when} is {found.whole:.9g} {story}"
        return LeakVerdict(name, False, detail, found.close_time_ms, found.whole, subject)
    if compared == 0:
        detail = f"{subject}: no output is defined where runs are compared; give more candles"
        return LeakVerdict(name, False, detail, subject=subject)
    return LeakVerdict(name, True, f"{subject}: {compared:,} outputs unchanged", subject=subject)
