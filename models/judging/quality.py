"""The quality card of a bundle: what its embedding says about the next day, and beside what.

- **Probes**: ridge regressions of the next day's realised volatility, absolute trend and volume
  regime, refitted every four weeks on the days before. Beside the embedding stand HAR-RV (Corsi
  2009), HAR-X (`forecasting.terms`), 22 hand-made day features, and the same encoder with random
  weights. HAR-X with the embedding beside it, which has a penalty of its own and may be left out,
  says whether the embedding adds anything.
- **Forecasts** (`card_forecasts`): the same inputs over all symbols at once, a constant each.
- **Retrieval**: the next day's volatility predicted by the mean of the nearest past days that share
  no candle with this one.
- **Alignment and uniformity** (Wang & Isola 2020, eq. 6 and 7) of the encoder's vectors of a day's
  two halves, and the **effective rank** of the embedding (Roy & Vetterli 2007). These compare runs
  of one method with each other, not methods.

Every day judged lies after the span the bundle learned from, unless in-sample is asked for by name.
Left out: tests of significance (`evaluation.forecasts` has those of the forecasts).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import Bundle
from cppncripto_strategy.models.encoders import Encoder, encoder_options
from cppncripto_strategy.models.forecasting.days import DayTable, day_table
from cppncripto_strategy.models.forecasting.forecaster import panel_of_sessions
from cppncripto_strategy.models.forecasting.panel import Forecasts, Panel, walk_forward
from cppncripto_strategy.models.forecasting.ridge import fit_blocks
from cppncripto_strategy.models.forecasting.terms import har_terms, har_x_terms
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.judging.days import day_targets, hand_made_features
from cppncripto_strategy.models.macronet import MacroNet, build_macronet

TARGETS = ("realised_volatility", "trend", "volume_regime")
INPUTS = ("embedding", "har_rv", "har_x", "har_x_and_embedding", "hand_made", "random_encoder")
ANCHOR = "har_x"
REFIT_DAYS = 28
# Fewer days than this before the first refit and a ridge says nothing.
MIN_LEARN_DAYS = 60
MIN_JUDGED_DAYS = 20
NEIGHBOURS = 5


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of one symbol.

    Parameters
    ----------
    symbol, target, inputs : what predicts what (see `TARGETS` and `INPUTS`).
    metric : "r2" out of sample, against the mean of the days before; "accuracy" for the regime.
    value : of the metric.
    benchmark : what no inputs reach: 0 for r2; for accuracy, that of the class commoner before.
    days : days judged.
    """

    symbol: str
    target: str
    inputs: str
    metric: str
    value: float
    benchmark: float
    days: int


@dataclass(frozen=True, slots=True)
class QualityCard:
    """What `quality_card` found; all plain values.

    Parameters
    ----------
    model_hash, encoder, objective : of the bundle.
    judged_from_ms, judged_until_ms : sessions judged start in [from, until).
    in_sample : whether the bundle may have learned from days that are judged.
    probes : ridge probes. retrieval : nearest past days, target realised_volatility, metric r2.
    alignment : mean squared distance of a day's two halves on the unit sphere, 0 to 4, lower is
        closer. uniformity : log mean Gaussian potential, 0 (one point) to about -4 (evenly spread).
    effective_rank : of the embeddings, 1 to their length.
    """

    model_hash: str
    encoder: str
    objective: str
    judged_from_ms: int
    judged_until_ms: int
    in_sample: bool
    probes: tuple[Probe, ...]
    retrieval: tuple[Probe, ...]
    alignment: float
    uniformity: float
    effective_rank: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for a report or a file."""
        return dataclasses.asdict(self)


def quality_card(
    bundle: Bundle,
    tables: Sequence[SessionTable],
    seed: int = 0,
    in_sample: bool = False,
    market: DayTable | None = None,
) -> QualityCard:
    """Judge a bundle's embedding on the sessions of some symbols.

    Parameters
    ----------
    bundle : with a MacroNet.
    tables : session tables made with the bundle's session settings; sessions without a scaler, or
        whose day is not over, are left out.
    seed : of the random encoder.
    in_sample : judge days that the bundle learned from, too.
    market : days of the market symbol, which HAR-X sees too; None for none.

    Raises
    ------
    BundleError
        When the bundle has no MacroNet, or fewer than 20 days may be judged.
    """
    start_ms = 0 if in_sample else bundle.info.trained_until_ms
    macros = _macros(bundle, tables, seed)
    probes: list[Probe] = []
    retrieval: list[Probe] = []
    members: list[SessionSet] = []
    judged: list[IntArray] = []
    for table in tables:
        sessions, inputs, targets = _of_symbol(table, macros, market)
        day_ms = sessions.start_ms()
        counted = (day_ms >= start_ms) & (np.arange(len(day_ms)) >= MIN_LEARN_DAYS)
        _require(table.symbol, int(counted.sum()), in_sample)
        probes += _probes(table.symbol, inputs, targets, counted)
        retrieval += _retrievals(table, day_ms, inputs, targets["realised_volatility"], counted)
        members.append(sessions)
        judged.append(day_ms[counted])
    macro = macros["embedding"]
    vectors = np.concatenate([_embed(macro, sessions) for sessions in members])
    halves = [_halves(macro.encoder, sessions) for sessions in members]
    first, second = (np.concatenate([half[side] for half in halves]) for side in (0, 1))
    return QualityCard(
        model_hash=bundle.model_hash,
        encoder=bundle.info.encoder or "none",
        objective=bundle.info.objective or "none",
        judged_from_ms=int(min(days[0] for days in judged)),
        judged_until_ms=int(max(days[-1] for days in judged)) + DAY_MS,
        in_sample=in_sample,
        probes=tuple(probes),
        retrieval=tuple(retrieval),
        alignment=alignment(*_on_sphere(first, second)),
        uniformity=uniformity(_on_sphere(first, second)[0]),
        effective_rank=effective_rank(vectors),
    )


@dataclass(frozen=True, slots=True, eq=False)
class CardForecasts:
    """Forecasts of the next day's log variance by each of `INPUTS`, over all symbols at once.

    Parameters
    ----------
    panel : the symbol-days. by_input : forecasts of its rows, NaN before the days judged.
    """

    panel: Panel
    by_input: Mapping[str, Forecasts]


def card_forecasts(
    bundle: Bundle,
    tables: Sequence[SessionTable],
    seed: int = 0,
    in_sample: bool = False,
    market: DayTable | None = None,
) -> CardForecasts:
    """Forecasts of the next day's log variance by what the card compares, refitted every month.

    All symbols learn one regression with a constant each. Parameters and errors as in
    `quality_card`.
    """
    macros = _macros(bundle, tables, seed)
    days = {table.symbol: day_table(table.grid) for table in tables}
    sessions = SessionSet.between(tables, 0, np.iinfo(np.int64).max)
    panel, kept = panel_of_sessions(days, sessions, market)
    chosen = SessionSet(sessions.tables, sessions.members[kept])
    vectors = {name: _embed(macro, chosen).astype(np.float64) for name, macro in macros.items()}
    made = [
        hand_made_features(days[table.symbol], panel.day_ms[panel.symbol == n], _long_days(table))
        for n, table in enumerate(tables)
    ]
    blocks = _blocks(panel.har, panel.har_x, np.concatenate(made), vectors)
    until_ms = bundle.info.trained_until_ms
    from_ms, earn_from_ms = (0, None) if in_sample else (until_ms, until_ms)
    judged = {
        name: walk_forward(
            panel, blocks[name], panel.log_variance, from_ms, earn_from_ms=earn_from_ms
        )
        for name in INPUTS
    }
    return CardForecasts(panel, judged)


def _blocks(
    har: FloatArray, har_x: FloatArray, hand_made: FloatArray, vectors: Mapping[str, FloatArray]
) -> dict[str, list[FloatArray]]:
    """Blocks of columns, each with a penalty of its own, of every one of `INPUTS`."""
    return {
        "embedding": [vectors["embedding"]],
        "har_rv": [har],
        "har_x": [har_x],
        "har_x_and_embedding": [har_x, vectors["embedding"]],
        "hand_made": [hand_made],
        "random_encoder": [vectors["random_encoder"]],
    }


def predict(
    blocks: Sequence[FloatArray], target: FloatArray, counted: NDArray[np.bool_]
) -> FloatArray:
    """Predictions and learning means (D, 2) of the rows `counted`, NaN elsewhere.

    Every four weeks a ridge is fitted to all rows before; row d's target is known when row d + 1 is
    predicted, so nothing has to be purged. Rows are consecutive sessions of one symbol, oldest
    first; each block of columns (D, C_k) has a penalty of its own.
    """
    predicted = np.full((len(target), 2), np.nan)
    rows = np.flatnonzero(counted)
    alone = np.zeros(len(target), dtype=np.int64)  # one symbol
    for begin in range(int(rows[0]) if len(rows) else 0, len(target), REFIT_DAYS):
        part = np.arange(begin, min(begin + REFIT_DAYS, len(target)))
        part = part[counted[part]]
        if len(part):
            learned = [block[:begin] for block in blocks]
            ridge = fit_blocks(learned, target[:begin], alone[:begin], np.arange(begin))
            predicted[part, 0] = ridge.predict([block[part] for block in blocks], alone[part])
            predicted[part, 1] = target[:begin].mean()
    return predicted


def nearest_past(
    vectors: FloatArray, day_ms: IntArray, query: FloatArray, query_ms: int, lag_ms: int, k: int
) -> tuple[IntArray, FloatArray]:
    """The k nearest days at least `lag_ms` before a day: their rows and Euclidean distances.

    Days closer in time than the long window share candles with the query and would look near by
    construction. Fewer than k where there are fewer; ties go to the earlier row.

    Parameters
    ----------
    vectors : float array (D, E). day_ms : int64 (D,). query : float array (E,).
    """
    allowed = np.flatnonzero(day_ms <= query_ms - lag_ms)
    away = vectors[allowed].astype(np.float64) - query.astype(np.float64)
    distance = np.linalg.norm(away, axis=1)
    order = np.argsort(distance, kind="stable")[:k]
    return allowed[order], distance[order]


def alignment(first: FloatArray, second: FloatArray) -> float:
    """Mean squared distance of pairs of unit vectors, both (N, E)."""
    return float(((first - second) ** 2).sum(axis=1).mean())


def uniformity(vectors: FloatArray) -> float:
    """ln of the mean of exp(-2 d^2) over all pairs of unit vectors (N, E), N >= 2; at least -8."""
    squared = np.clip(2 - 2 * vectors @ vectors.T, 0, None)
    pairs = squared[np.triu_indices(len(vectors), 1)]
    return float(np.log(np.exp(-2 * pairs).mean()))


def effective_rank(vectors: FloatArray) -> float:
    """exp of the entropy of the normalised singular values of the centred vectors (N, E)."""
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    share = singular / max(singular.sum(), 1e-300)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _require(symbol: str, days: int, in_sample: bool) -> None:
    if days < MIN_JUDGED_DAYS:
        advice = (
            "import more candles" if in_sample else "import later candles, or ask for in-sample"
        )
        raise BundleError(
            f"{symbol}: {days} days may be judged, a card needs {MIN_JUDGED_DAYS} (and"
            f" {MIN_LEARN_DAYS} before them to fit the probes): {advice}"
        )


def _random_twin(bundle: Bundle, tables: Sequence[SessionTable], seed: int) -> MacroNet:
    """The same encoder with random weights, standardised as the trained one was."""
    info, settings = bundle.info, bundle.info.session
    name = info.encoder or "tcn"
    options = encoder_options(name, info.encoder_options).unlearned().to_json()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = build_macronet(name, len(settings.names), settings.n_statistics, options)
    twin.eval()
    known = SessionSet.between(tables, 0, info.trained_until_ms)
    every = SessionSet.between(tables, 0, np.iinfo(np.int64).max)
    learned = known if len(known) >= MIN_LEARN_DAYS else every
    twin.calibrate(torch.from_numpy(_embed(twin, learned, raw=True)))
    return twin


def _macros(bundle: Bundle, tables: Sequence[SessionTable], seed: int) -> dict[str, MacroNet]:
    """The bundle's MacroNet and its random twin. Raises BundleError when there is none."""
    if bundle.macro is None:
        raise BundleError("this bundle trades without macro: there is no embedding to judge")
    return {"embedding": bundle.macro, "random_encoder": _random_twin(bundle, tables, seed)}


def _long_days(table: SessionTable) -> int:
    """Days of the long window, at least one."""
    return max(table.settings.long_window // table.settings.day_candles, 1)


def _of_symbol(
    table: SessionTable, macros: Mapping[str, MacroNet], market: DayTable | None
) -> tuple[SessionSet, dict[str, list[FloatArray]], dict[str, FloatArray]]:
    """A symbol's sessions whose every input and target is known, with both."""
    sessions = SessionSet.between([table], 0, np.iinfo(np.int64).max)
    days, session_ms = day_table(table.grid), sessions.start_ms()
    known = {
        "har": har_terms(days, session_ms),
        "har_x": har_x_terms(days, session_ms, market),
        "hand_made": hand_made_features(days, session_ms, _long_days(table)),
    }
    targets = day_targets(days, session_ms)
    columns = [*known.values(), *(values[:, None] for values in targets.values())]
    whole = np.isfinite(np.concatenate(columns, axis=1)).all(axis=1)
    kept = SessionSet(sessions.tables, sessions.members[whole])
    known = {name: values[whole] for name, values in known.items()}
    vectors = {name: _embed(macro, kept).astype(np.float64) for name, macro in macros.items()}
    blocks = _blocks(known["har"], known["har_x"], known["hand_made"], vectors)
    return kept, blocks, {name: values[whole] for name, values in targets.items()}


def _probes(
    symbol: str,
    inputs: Mapping[str, Sequence[FloatArray]],
    targets: Mapping[str, FloatArray],
    counted: NDArray[np.bool_],
) -> list[Probe]:
    """Every target by every input."""
    found = []
    for target in TARGETS:
        truth = targets[target][counted]
        for name in INPUTS:
            predicted, baseline = predict(inputs[name], targets[target], counted)[counted].T
            if target == "volume_regime":
                metric, value = "accuracy", float(np.mean(np.sign(predicted) == truth))
                benchmark = float(np.mean(np.where(baseline >= 0, 1.0, -1.0) == truth))
            else:
                metric, value, benchmark = "r2", _r2(predicted, truth, baseline), 0.0
            found.append(Probe(symbol, target, name, metric, value, benchmark, len(truth)))
    return found


def _retrievals(
    table: SessionTable,
    day_ms: IntArray,
    inputs: Mapping[str, Sequence[FloatArray]],
    target: FloatArray,
    counted: NDArray[np.bool_],
) -> list[Probe]:
    """The target as the mean of the nearest past days', for every input."""
    lag_ms = table.settings.long_window * table.settings.interval_ms
    rows = np.flatnonzero(counted)
    baseline = np.array([target[day_ms <= day_ms[row] - lag_ms].mean() for row in rows])
    found = []
    for name in INPUTS:
        predicted, columns = [], np.concatenate(inputs[name], axis=1)
        for row in rows:
            past = day_ms <= day_ms[row] - lag_ms
            center, spread = columns[past].mean(axis=0), columns[past].std(axis=0)
            scaled = (columns - center) / np.where(spread > 1e-9, spread, 1.0)
            near, _ = nearest_past(
                scaled, day_ms, scaled[row], int(day_ms[row]), lag_ms, NEIGHBOURS
            )
            predicted.append(target[near].mean())
        value = _r2(np.array(predicted), target[rows], baseline)
        found.append(Probe(table.symbol, "realised_volatility", name, "r2", value, 0.0, len(rows)))
    return found


@torch.no_grad()
def _embed(macro: MacroNet, sessions: SessionSet, raw: bool = False) -> NDArray[np.float32]:
    """Embeddings (N, E) of a set of sessions."""
    statistics, call = sessions.statistics(), macro.raw if raw else macro
    parts = [
        call(sessions.gather(rows), statistics[rows]).numpy() for rows in _batches(len(sessions))
    ]
    return np.concatenate(parts)


@torch.no_grad()
def _halves(encoder: Encoder, sessions: SessionSet) -> tuple[FloatArray, FloatArray]:
    """The encoder's vectors of both halves of the last day of each window, 2 x (N, width)."""
    patches = sessions.tables[0].settings.macro_day_rows // 2 // encoder.stride
    half = max(patches, 1) * encoder.stride  # of long candles a day may hold less than two patches
    first, second = [], []
    for rows in _batches(len(sessions)):
        windows = sessions.gather(rows)  # (B, T, F)
        first.append(encoder(windows[:, -2 * half : -half]).numpy())
        second.append(encoder(windows[:, -half:]).numpy())
    return np.concatenate(first).astype(np.float64), np.concatenate(second).astype(np.float64)


def _batches(count: int) -> list[IntArray]:
    """Row numbers in parts of at most 64."""
    return [np.arange(first, min(first + 64, count)) for first in range(0, count, 64)]


def _on_sphere(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each side centred, then every vector brought to unit length.

    Centring is a deviation from the source: without it the halves' vectors share the clock's mean.
    """
    centred = [side - side.mean(axis=0) for side in (first, second)]
    unit = [side / (np.linalg.norm(side, axis=1, keepdims=True) + 1e-12) for side in centred]
    return unit[0], unit[1]


def _r2(predicted: FloatArray, truth: FloatArray, baseline: FloatArray) -> float:
    """Share of the squared error that is left away against the baseline."""
    error, benchmark = ((predicted - truth) ** 2).sum(), ((baseline - truth) ** 2).sum()
    return float(1 - error / max(benchmark, 1e-300))
