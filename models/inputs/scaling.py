"""Session scalers: fitted on one session's macro window alone, applied unchanged all that day.

A session is a UTC day of one symbol. Its scaler sees the same candles as its embedding, those that
closed by the day's 00:00, so it can be applied to every short window of the day without knowing the
day. Robust scaling (median, interquartile range) or min-max (mid-range, half-range).

A scaler deletes the level of volatility, which matters for the day to come: `statistics` gives it
back, to be appended to the embedding.

Left out: running or whole-span scalers. The second one leaks, the first drifts within a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.features import scaled_columns

ScalerKind = Literal["robust", "minmax"]

CLIP = 10.0
"""Scaled values are clipped to +-CLIP, so that one bad tick cannot rule a window."""
MIN_SCALE = 1e-6
"""Smallest scale: a hundredth of a basis point of return. Below it a column counts as constant."""
_SESSION_VALUES = 4_000_000
"""Window values that `fit_sessions` holds at a time (32 MB)."""


@dataclass(frozen=True, slots=True, eq=False)
class SessionScaler:
    """What one session's features are centred on and divided by.

    Parameters
    ----------
    kind : "robust" (median, IQR) or "minmax" (mid-range, half-range).
    names : the F feature names it was fitted on, passed-through ones included.
    center, scale : float64 arrays (S,), one for each scaled column, in the order of `names`.
    """

    kind: ScalerKind
    names: tuple[str, ...]
    center: FloatArray
    scale: FloatArray

    def apply(self, features: FloatArray) -> NDArray[np.float32]:
        """Scaled features, float32 of the same shape (..., F).

        Scaled columns become (x - center) / scale, clipped to +-`CLIP`, with NaN becoming 0 (the
        `present` column says which were missing). The other columns pass through unchanged.
        """
        return apply_scaling(features, self.names, self.center, self.scale)

    def statistics(self) -> FloatArray:
        """Centers, then natural logs of the scales, float64 (2S,): what scaling took away."""
        return np.concatenate([self.center, np.log(self.scale)])


def fit_scaler(
    window_features: FloatArray, names: Sequence[str], kind: ScalerKind = "robust"
) -> SessionScaler | None:
    """Scaler of one macro window, or None where the window cannot be trusted.

    Parameters
    ----------
    window_features : float64 array (T, F), the macro window's features; NaN rows are ignored.
    names : the F column names.
    kind : "robust" or "minmax".

    Returns
    -------
    None when fewer than half of the rows are finite in some scaled column: there is no scaler for
    that session, and its scores must be NaN.

    Raises
    ------
    RecipeError
        When the kind is unknown or the names do not match the columns.
    """
    rows = len(window_features)
    center, scale, ok = fit_sessions(window_features, np.array([rows]), rows, names, kind)
    return SessionScaler(kind, tuple(names), center[0], scale[0]) if ok[0] else None


def fit_sessions(
    features: FloatArray,
    session_rows: IntArray,
    window_rows: int,
    names: Sequence[str],
    kind: ScalerKind = "robust",
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Scalers of many sessions at once, equal to `fit_scaler` on each window, bit for bit.

    Parameters
    ----------
    features : float64 array (T, F).
    session_rows : int64 array (D,). Session d sees rows [session_rows[d] - window_rows,
        session_rows[d]): give the row after the last candle that closed by the session's 00:00.
    window_rows : candles in the macro window.
    names : the F column names.
    kind : "robust" or "minmax".

    Returns
    -------
    center, scale : float64 arrays (D, S), NaN where the session has no scaler.
    ok : bool array (D,), False where the window leaves the grid, or fewer than half of its rows are
        finite in some scaled column.

    Raises
    ------
    RecipeError
        When the kind is unknown or the names do not match the columns.
    """
    _check(features, names, kind)
    columns = scaled_columns(names)
    ends = np.asarray(session_rows, dtype=np.int64)
    center = np.full((len(ends), len(columns)), np.nan)
    scale = np.full_like(center, np.nan)
    ok = (ends >= window_rows) & (ends <= len(features)) & (window_rows > 0)
    inside = np.flatnonzero(ok)
    step = max(1, _SESSION_VALUES // max(1, window_rows * len(columns)))
    scaled = np.ascontiguousarray(features[:, columns].T)  # (S, T)
    for first in range(0, len(inside), step):
        chunk = inside[first : first + step]
        ordered = _sorted_windows(scaled, ends[chunk], window_rows)
        middle, spread, enough = _center_and_scale(ordered, kind)
        ok[chunk] = enough.all(axis=0)
        center[chunk], scale[chunk] = middle.T, spread.T
    center[~ok], scale[~ok] = np.nan, np.nan
    return center, scale, ok


def apply_scaling(
    features: FloatArray, names: Sequence[str], center: FloatArray, scale: FloatArray
) -> NDArray[np.float32]:
    """Scale features (..., F) by center and scale that broadcast against (..., S); float32.

    As `SessionScaler.apply`, for many sessions at once: features (D, T, F) with center[:, None].
    Where center or scale is NaN the scaled columns are 0: mask those sessions by `ok`.
    """
    return scale_columns(features, scaled_columns(names), center, scale)


def scale_windows(
    features: FloatArray,
    first: IntArray,
    length: int,
    names: Sequence[str],
    center: FloatArray,
    scale: FloatArray,
) -> NDArray[np.float32]:
    """As `apply_scaling` of the rows from each `first` (B,) on, float32 (B, length, F).

    A window at a time and a column beside the other, so that what is worked on stays in the cache;
    quickest where the columns of `features` (T, F) lie contiguous.

    Parameters
    ----------
    center, scale : float64 (B, S), of each window.
    """
    columns, by_column = scaled_columns(names), features.T  # (S,), (F, T)
    result = np.empty((len(first), len(names), length), np.float32)  # (B, F, length)
    for place, row in enumerate(first.tolist()):
        window = by_column[:, row : row + length]
        scaled = window[columns]  # (S, length)
        scaled -= center[place, :, None]
        scaled /= scale[place, :, None]
        result[place] = window
        result[place, columns] = _bounded(scaled)
    return np.ascontiguousarray(result.transpose(0, 2, 1))


def scale_columns(
    features: FloatArray, columns: IntArray, center: FloatArray, scale: FloatArray
) -> NDArray[np.float32]:
    """As `apply_scaling`, where the positions of the scaled columns (S,) are known already."""
    scaled = (features[..., columns] - center) / scale  # (..., S)
    result = features.astype(np.float32)
    result[..., columns] = _bounded(scaled)
    return result


def _bounded(scaled: FloatArray) -> FloatArray:
    """The same array, within the clip, and 0 where nothing is known."""
    np.clip(scaled, -CLIP, CLIP, out=scaled)
    scaled[np.isnan(scaled)] = 0.0
    return scaled


def _check(features: FloatArray, names: Sequence[str], kind: str) -> None:
    if kind not in get_args(ScalerKind):
        raise RecipeError(f"scaler {kind!r} is unknown; there are: robust, minmax")
    if features.ndim != 2 or features.shape[1] != len(names):
        raise RecipeError(
            f"features of shape {features.shape} do not match {len(names)} names: {tuple(names)}"
        )


def _sorted_windows(values: FloatArray, ends: IntArray, length: int) -> FloatArray:
    """The rows of (S, T) before each end (d,), each window in order, (S, d, length); NaN last.

    Windows whose ends are a part of them apart share their parts: each is sorted once, and merged.
    """
    steps = np.diff(ends)
    step = int(steps[0]) if len(steps) and (steps == steps[0]).all() else 0
    if step <= 0 or length % step:
        rows = ends[:, None] - length + np.arange(length)  # (d, W)
        return np.sort(values[:, rows], axis=-1)
    covered = values[:, int(ends[0]) - length : int(ends[-1])]
    parts = np.sort(covered.reshape(len(values), -1, step), axis=-1)  # (S, d + n - 1, step)
    shared = sliding_window_view(parts, length // step, axis=1)  # (S, d, step, n)
    windows = shared.swapaxes(2, 3).copy().reshape(len(values), len(ends), length)
    windows.sort(axis=-1, kind="stable")  # which merges runs that are in order
    return windows


def _center_and_scale(
    ordered: FloatArray, kind: ScalerKind
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Center and scale (S, d) of sorted windows (S, d, W), and which have half of their rows."""
    count = ordered.shape[-1] - np.count_nonzero(np.isnan(ordered), axis=-1)  # (S, d)
    if kind == "robust":
        center = _quantile(ordered, count, 0.5)
        scale = _quantile(ordered, count, 0.75) - _quantile(ordered, count, 0.25)
    else:
        low, high = _quantile(ordered, count, 0.0), _quantile(ordered, count, 1.0)
        center, scale = (low + high) / 2, (high - low) / 2
    return center, _guarded(scale, center, ordered), count * 2 >= ordered.shape[-1]


def _quantile(ordered: FloatArray, count: IntArray, level: float) -> FloatArray:
    """Linear-interpolation quantile of the `count` first of each sorted row; NaN of none."""
    position = np.maximum(count - 1, 0) * level
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low = np.take_along_axis(ordered, below[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, above[..., None], axis=-1)[..., 0]
    return low + (high - low) * (position - below)


def _guarded(scale: FloatArray, center: FloatArray, ordered: FloatArray) -> FloatArray:
    """Scales no smaller than `MIN_SCALE`.

    A column whose middle half is constant has no IQR but may still move (a quiet pair that ticks
    now and then): there the mean absolute deviation stands in.
    """
    for where in np.argwhere(scale < MIN_SCALE):
        window = ordered[tuple(where)]
        known = window[~np.isnan(window)]
        scale[tuple(where)] = np.abs(known - center[tuple(where)]).mean()
    return np.maximum(scale, MIN_SCALE)
