"""Walk-forward: on an absolute calendar, learn from the past, then score what follows.

    |<----- train ----->| purge |<- embargo ->| validate |  R  | score until the next R
                                                          trained_until

Retraining stamps are multiples of the period since Monday 1970-01-05 00:00 UTC, and a chain of warm
starts begins at a stamp where MacroNet is trained afresh, so that another time range retrains on
the same days and finds the same bundles. Nothing a bundle learned from closes after its
`trained_until`: labels that reach past a boundary are purged on the left of it, and candles whose
short window and features reach back across it are embargoed on the right. (The macro windows of
the first validation days do reach back: MacroNet and the scalers know no label.)

Finished bundles are kept in a cache folder under a key over settings, seed, code, candles and the
bundle before; a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cppncripto_strategy.codehash import closure_digest
from cppncripto_strategy.errors import BundleError, TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS, FIRST_MONDAY_MS, ms_to_date
from cppncripto_strategy.models.bundle import Bundle, BundleInfo, BundleTimeline, zero_context
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.labels import Labels
from cppncripto_strategy.models.learning.drift import (
    Repair,
    RetrainDecision,
    bank_drift,
    decide_by_drift,
)
from cppncripto_strategy.models.learning.training import (
    IGNORED,
    MicroData,
    TrainedMicro,
    train_micronet,
)
from cppncripto_strategy.models.macronet import MacroNet, build_macronet
from cppncripto_strategy.models.micronet import BUY, HOLD, SELL
from cppncripto_strategy.models.parts import plugin_parts
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.progress import Progress

log = logging.getLogger(__name__)

# More than the adaptive threshold needs before it speaks (288), so a new bundle trades at once.
SEED_QUANTILES = 401
# About 401 over the golden ratio squared; 401 is prime, so steps of it visit every quantile once.
SEED_STRIDE = 153
EMBED_BATCH = 64


def calendar(start_ms: int, end_ms: int, every_days: int) -> list[int]:
    """Retraining stamps for scoring [start_ms, end_ms): the last at or before the start, then on.

    Stamps are multiples of the period since a Monday, whatever the range asked for.
    """
    period = every_days * DAY_MS
    first = (start_ms - FIRST_MONDAY_MS) // period * period + FIRST_MONDAY_MS
    return list(range(first, max(end_ms, first + 1), period))


def walk_forward(
    tables: Sequence[SessionTable],
    start_ms: int,
    end_ms: int,
    settings: LearnSettings,
    seed: int,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> BundleTimeline:
    """Train a bundle at every retraining stamp that scoring [start_ms, end_ms) needs.

    Parameters
    ----------
    tables : session tables of the symbols to learn from, reaching at least to the last stamp.
    cache : folder of finished bundles; None trains afresh and keeps nothing.
    progress : called with (done, total, text), over all stamps.

    Raises
    ------
    TrainingError
        When the candles do not reach back far enough before the first stamp.
    """
    wanted = calendar(start_ms, end_ms, settings.retrain_days)
    stamps = _lead_in(tables, wanted[0], settings) + wanted
    bundles: list[Bundle] = []
    decision: RetrainDecision | None = None
    for number, stamp in enumerate(stamps):

        def report(done: int, total: int, text: str, number: int = number) -> None:
            if progress is not None:
                share = round(1000 * (number + done / max(total, 1)))
                progress(share, 1000 * len(stamps), f"bundle {number + 1}/{len(stamps)} {text}")

        previous = bundles[-1] if bundles else None
        decision = decide(tables, stamp, settings, previous, decision)
        log.info("%s: %s: %s", ms_to_date(stamp), decision.repair.name.lower(), decision.reason)
        bundle = carry_out(tables, decision, settings, seed, previous, cache, report)
        if bundle is not None:
            bundles.append(bundle)
    first = max(i for i, b in enumerate(bundles) if b.info.trained_until_ms <= wanted[0])
    return BundleTimeline(tuple(bundles[first:]))


def _lead_in(tables: Sequence[SessionTable], first_ms: int, settings: LearnSettings) -> list[int]:
    """Stamps before `first_ms` whose warm starts lead to it, from where MacroNet is trained.

    None where the candles do not reach back far enough for all of them, or where drift decides: the
    first bundle is then trained afresh, and a range that starts elsewhere would find other bundles.
    """
    if settings.retrain != "calendar":
        return []
    macro_ms = calendar(first_ms, first_ms, settings.macro_retrain_days)[0]
    stamps = calendar(macro_ms, first_ms, settings.retrain_days)
    lead = [stamp for stamp in stamps if macro_ms <= stamp < first_ms]
    needed = min(lead, default=0) - (settings.train_days + settings.validate_days) * DAY_MS
    reaches = all(len(table) > 0 and table.start_ms[0] <= needed for table in tables)
    if lead and not reaches:
        log.info(
            "candles begin too late for the warm starts from %s on: the first bundle, %s, is"
            " trained afresh",
            ms_to_date(lead[0]),
            ms_to_date(first_ms),
        )
    return lead if reaches else []


def decide(
    tables: Sequence[SessionTable],
    stamp_ms: int,
    settings: LearnSettings,
    previous: Bundle | None,
    before: RetrainDecision | None,
) -> RetrainDecision:
    """What to do at a retraining stamp, from candles that closed by then alone.

    Parameters
    ----------
    previous : the bundle in force, None at the first stamp; before : the decision before this one.
    """
    nan = float("nan")
    macro_due = calendar(stamp_ms, stamp_ms, settings.macro_retrain_days)[0]
    both = RetrainDecision(stamp_ms, nan, Repair.RETRAIN_MACRO, "calendar, both networks")
    if previous is None:
        # A first bundle that is due anyway has the bytes, and so the reason, of a longer run's.
        due = stamp_ms - macro_due < settings.retrain_days * DAY_MS
        return (
            both
            if due and settings.retrain == "calendar"
            else dataclasses.replace(both, reason="first")
        )
    if settings.retrain == "drift" and previous.macro is not None:
        return decide_by_drift(
            stamp_ms, _drifts(tables, stamp_ms, settings, previous), settings.drift_limit, before
        )
    if macro_due > previous.info.trained_until_ms:
        return both
    return RetrainDecision(stamp_ms, nan, Repair.RETRAIN_MICRO, "calendar, MicroNet")


def _drifts(
    tables: Sequence[SessionTable], stamp_ms: int, settings: LearnSettings, bundle: Bundle
) -> list[float]:
    """Drift of each day of each symbol since the check before."""
    since = stamp_ms - settings.retrain_days * DAY_MS
    recent = SessionSet.between(tables, since, stamp_ms)
    if len(recent) == 0:
        return []
    vectors = embed_set(bundle.macro, recent).numpy()
    pairs = zip(vectors, recent.start_ms(), strict=True)
    return [bank_drift(bundle, vector, int(ms)) for vector, ms in pairs]


def recalibrate(
    tables: Sequence[SessionTable], bundle: Bundle, until_ms: int, settings: LearnSettings
) -> Bundle:
    """The same networks with a threshold start made of their own recent scores.

    The scores are of days the bundle was not trained on, the last `validate_days` at most. Without
    any, the old start is kept.
    """
    since = max(bundle.info.trained_until_ms, until_ms - settings.validate_days * DAY_MS)
    recent = SessionSet.between(tables, since, until_ms)
    info = dataclasses.replace(bundle.info, trained_until_ms=until_ms)
    if len(recent) == 0:
        return dataclasses.replace(bundle, info=info)
    net = bundle.micro
    with torch.no_grad():
        inputs = recent.micro_inputs(np.arange(len(recent)), net.receptive_field)
        scores = net.probabilities(net(inputs, embed_set(bundle.macro, recent)))[..., 0]
    return dataclasses.replace(bundle, info=info, score_seed=_score_quantiles(scores.numpy()))


def learn_bundle(
    tables: Sequence[SessionTable],
    until_ms: int,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Train one bundle on candles that closed by `until_ms`.

    With `previous`, its MacroNet is kept and MicroNet starts from its weights; without, both are
    trained afresh.

    Raises
    ------
    TrainingError
        When there are too few sessions to train or to validate on.
    """
    split = until_ms - settings.validate_days * DAY_MS
    start = split - settings.train_days * DAY_MS
    train = SessionSet.between(tables, start, split)
    validation = SessionSet.between(tables, split, until_ms)
    _require(train, validation, start, split, until_ms)
    macro, curves, options = _macronet(
        train, validation, until_ms, settings, seed, previous, progress
    )
    labels = [settings.label.compute(table.grid) for table in tables]
    trained = _micronet(
        train, validation, labels, macro, split, until_ms, settings, seed, previous, progress
    )
    bank = embed_set(macro, train), embed_set(macro, validation)
    info = BundleInfo(
        session=settings.session,
        encoder=settings.encoder if macro is not None else None,
        encoder_options=options,
        objective=settings.objective if macro is not None else None,
        micro=settings.micro_settings(),
        label=settings.label.to_json(),
        symbols=tuple(table.symbol for table in tables),
        trained_from_ms=int(train.start_ms().min())
        - settings.session.warmup * settings.session.interval_ms,
        trained_until_ms=until_ms,
        seed=seed,
        data_fingerprint=fingerprint(tables, _reach_ms(settings, until_ms), until_ms),
        validation={
            "loss": trained.validation_loss,
            "labelled_candles": len(trained.validation_scores),
            "sessions": len(validation),
        },
        curves={"macro": curves, "micro": trained.curves},
        plugins=plugin_parts(settings),
    )
    return Bundle(
        info=info,
        macro=macro,
        micro=trained.net,
        score_seed=_score_quantiles(trained.validation_scores),
        bank=np.concatenate([part.numpy() for part in bank]),
        bank_ms=np.concatenate([train.start_ms(), validation.start_ms()]),
    )


def _score_quantiles(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Evenly spaced quantiles of scores of any shape, (SEED_QUANTILES,), scattered in order.

    The threshold forgets its oldest scores first: in ascending order it would forget the lowest,
    and a short history would hold the highest alone. Any stretch of this order is spread evenly.
    """
    levels = np.linspace(0, 1, SEED_QUANTILES)
    quantiles: NDArray[np.float64] = np.quantile(scores.astype(np.float64), levels)
    return quantiles[np.arange(SEED_QUANTILES) * SEED_STRIDE % SEED_QUANTILES]


def _reach_ms(settings: LearnSettings, until_ms: int) -> int:
    """Open time of the first candle that a bundle trained until `until_ms` can depend on."""
    start = until_ms - (settings.train_days + settings.validate_days) * DAY_MS
    return start - settings.session.warmup * settings.session.interval_ms


def fingerprint(tables: Sequence[SessionTable], from_ms: int, until_ms: int) -> str:
    """SHA-256 over every symbol's candles that open from `from_ms` on and close by `until_ms`."""
    digest = hashlib.sha256()
    for table in tables:
        grid = table.grid
        first, last = (int(np.clip(grid.row_of(ms), 0, len(grid))) for ms in (from_ms, until_ms))
        rows = grid.rows(first, last)
        digest.update(f"{table.symbol} {rows.start_ms} {rows.interval_ms}".encode())
        for column in (rows.open, rows.high, rows.low, rows.close, rows.volume):
            digest.update(np.ascontiguousarray(column).tobytes())
        for need in table.settings.table.needs:
            digest.update(np.ascontiguousarray(getattr(rows, need)).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def embed_set(
    macro: MacroNet | None, sessions: SessionSet, raw: bool = False, mirrored: bool = False
) -> torch.Tensor:
    """Embeddings of a set of sessions, (N, E); zeros without macro.

    `raw` leaves out the standardiser; `mirrored` embeds the mirrored market.
    """
    if macro is None:
        return zero_context(len(sessions))
    table = sessions.tables[0].settings.table
    scaled = list(table.scaled)
    statistics, call = sessions.statistics(), macro.raw if raw else macro
    window_sign = torch.ones(len(table))
    if mirrored:
        window_sign[list(table.odd)] = -1.0
    statistics[:, : len(scaled)] *= window_sign[scaled]  # the centres
    parts = [
        call(sessions.gather(rows) * window_sign, statistics[torch.from_numpy(rows)])
        for rows in np.array_split(np.arange(len(sessions)), -(-len(sessions) // EMBED_BATCH))
    ]
    return torch.cat(parts)


def micro_data(
    sessions: SessionSet,
    labels: Sequence[Labels],
    macro: MacroNet | None,
    receptive_field: int,
    return_scale: float,
    from_ms: int,
    until_ms: int,
) -> MicroData:
    """Inputs, embeddings and targets of a set of sessions.

    A candle carries a target when it closes at or after `from_ms`, and its label is valid (all its
    candles exist) and known by `until_ms`. `return_scale` divides the return before tanh, for the
    regression head.
    """
    day = sessions.tables[0].settings.day_candles
    target = np.full((len(sessions), day), IGNORED, dtype=np.int64)
    value = np.full((len(sessions), day), np.nan, dtype=np.float32)
    forward = np.full((len(sessions), day), np.nan, dtype=np.float32)
    for place, (number, session) in enumerate(sessions.members):
        table, label = sessions.tables[number], labels[number]
        at = table.session_rows(int(session))
        rows = np.arange(at.start, min(at.stop, len(table.grid)))
        close = table.grid.start_ms + (rows + 1) * table.grid.interval_ms
        known_by = close + label.horizon * table.grid.interval_ms
        usable = label.valid[rows] & (close >= from_ms) & (known_by <= until_ms)
        columns, rows = np.flatnonzero(usable), rows[usable]
        target[place, columns] = np.where(
            label.target[rows] > 0, BUY, np.where(label.target[rows] < 0, SELL, HOLD)
        )
        forward[place, columns] = label.forward_return[rows]
        value[place, columns] = np.tanh(label.forward_return[rows] / return_scale)
    return MicroData(
        inputs=sessions.micro_inputs(np.arange(len(sessions)), receptive_field),
        context=embed_set(macro, sessions),
        mirror_context=embed_set(macro, sessions, mirrored=True),
        target=torch.from_numpy(target),
        value=torch.from_numpy(value),
        forward_return=torch.from_numpy(forward),
        odd_columns=sessions.tables[0].settings.table.odd,
    )


def _require(train: SessionSet, validation: SessionSet, start: int, split: int, until: int) -> None:
    """Refuse to learn from next to nothing. Raises TrainingError."""
    if len(train) < 10 or len(validation) < 3:
        days = [ms_to_date(ms) for ms in (start, split, until)]
        raise TrainingError(
            f"too few days to learn from: {len(train)} usable sessions in {days[0]} to {days[1]}"
            f" (needs 10) and {len(validation)} for validation until {days[2]} (needs 3). Start the"
            " trading range later, import earlier candles, or lower train_days and validate_days"
        )


def _require_past_choice(chosen_ms: int | None, until_ms: int) -> None:
    """Refuse an encoder whose architecture was chosen on later candles. Raises BundleError."""
    if chosen_ms is not None and chosen_ms > until_ms:
        days = [ms_to_date(ms) for ms in (chosen_ms, until_ms)]
        raise BundleError(
            f"the genome was evolved on candles until {days[0]}, and the bundle must know nothing"
            f" after {days[1]}: trade later candles, or evolve again with this recipe's timerange"
        )


def _require_same_features(chosen: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Refuse an encoder whose architecture was chosen on other features. Raises BundleError."""
    if chosen and chosen != names:
        raise BundleError(
            f"the genome was evolved on the features {', '.join(chosen)}, and the recipe names"
            f" {', '.join(names)}: give features.columns those, or evolve again"
        )


def _macronet(
    train: SessionSet,
    validation: SessionSet,
    until_ms: int,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
    progress: Progress | None,
) -> tuple[MacroNet | None, dict[str, Any], dict[str, Any]]:
    """MacroNet (kept, fresh or none), its loss curves and its encoder's options."""
    if not settings.use_macro:
        return None, {}, {}
    if previous is not None:
        return previous.macro, previous.info.curves["macro"], previous.info.encoder_options
    torch.manual_seed(seed)
    names = settings.session.names
    macro = build_macronet(
        settings.encoder, len(names), settings.session.n_statistics, settings.encoder_options
    )
    _require_past_choice(macro.encoder.chosen_until_ms, until_ms)
    _require_same_features(macro.encoder.chosen_features, names)
    objective = build_objective(
        settings.objective,
        macro.encoder,
        settings.session.table,
        settings.objective_options,
        settings.session.day_candles,
    )

    def report(done: int, total: int, text: str) -> None:
        if progress is not None:
            progress(done, 2 * total, f"MacroNet {text}")

    curve = pretrain(macro.encoder, objective, train, validation, settings.pretrain, seed, report)
    macro.calibrate(embed_set(macro, train, raw=True))
    macro.eval()
    return macro, curve.to_json(), macro.encoder.options.to_json()


def _micronet(
    train: SessionSet,
    validation: SessionSet,
    labels: Sequence[Labels],
    macro: MacroNet | None,
    split_ms: int,
    until_ms: int,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
    progress: Progress | None,
) -> TrainedMicro:
    """Train MicroNet under a MacroNet, purged and embargoed at the split."""
    field_rows = settings.micro_settings().receptive_field
    reach_rows = settings.session.table.memory + field_rows
    embargo_ms = reach_rows * settings.session.interval_ms
    scale = _return_scale(labels, train, split_ms - settings.train_days * DAY_MS, split_ms)
    make = functools.partial(
        micro_data, labels=labels, macro=macro, receptive_field=field_rows, return_scale=scale
    )
    train_data = make(train, from_ms=0, until_ms=split_ms)
    validation_data = make(validation, from_ms=split_ms + embargo_ms, until_ms=until_ms)
    how, warm = settings.train, None
    if previous is not None:
        how = dataclasses.replace(how, epochs=settings.warm_epochs, initialisations=1)
        warm = previous.micro

    def report(done: int, total: int, text: str) -> None:
        if progress is not None:
            half = 0 if previous is not None else total
            progress(half + done, half + total, f"MicroNet {text}")

    return train_micronet(
        train_data, validation_data, settings.micro_settings(), how, seed, warm, report
    )


def _return_scale(
    labels: Sequence[Labels], train: SessionSet, start_ms: int, split_ms: int
) -> float:
    """Root mean square of the training span's forward returns: the unit of the regression."""
    squares: list[NDArray[np.float64]] = []
    for table, label in zip(train.tables, labels, strict=True):
        close_ms = table.grid.close_time
        known = close_ms + label.horizon * table.grid.interval_ms <= split_ms
        inside = label.valid & known & (close_ms >= start_ms)
        squares.append(label.forward_return[inside] ** 2)
    every = np.concatenate(squares)
    return float(np.sqrt(every.mean())) if len(every) and every.any() else 1.0


def cache_key(
    tables: Sequence[SessionTable],
    until_ms: int,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
) -> str:
    """Name of a bundle in the cache: its stamp, and a hash over everything it follows from."""
    parts = {
        "settings": dataclasses.asdict(settings),
        "plugins": [dataclasses.asdict(part) for part in plugin_parts(settings)],
        "features": settings.session.table.digests,
        "seed": seed,
        "until": until_ms,
        "candles": fingerprint(tables, _reach_ms(settings, until_ms), until_ms),
        "previous": previous.model_hash if previous is not None else None,
        "code": [closure_digest(__name__), torch.__version__],
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{ms_to_date(until_ms)}-{digest[:16]}"


def carry_out(
    tables: Sequence[SessionTable],
    decision: RetrainDecision,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Bundle | None:
    """The bundle that a decision asks for, from the cache or made now; None where it keeps.

    The bundle's `info.reason` is the decision's. Walk-forward and paper sessions both come here.

    Parameters
    ----------
    previous : the active bundle, from which a cheaper repair than MacroNet's starts.
    cache : folder of finished bundles; None makes the bundle anew and keeps nothing.

    Raises
    ------
    TrainingError
        As `learn_bundle` does.
    """
    if decision.repair is Repair.KEEP:
        return None
    kept = None if decision.repair is Repair.RETRAIN_MACRO else previous
    if cache is None:
        return _make(tables, decision, settings, seed, kept, progress)
    key = cache_key(tables, decision.stamp_ms, settings, seed, kept)
    folder = cache / f"{key}-{decision.repair.name.lower()}"
    if folder.exists():
        try:
            return Bundle.load(folder)
        except BundleError as error:
            log.warning("cached bundle is set aside and trained again: %s", error)
            aside = Path(tempfile.mkdtemp(prefix=f".damaged-{folder.name}-", dir=cache))
            folder.rename(aside / folder.name)
    bundle = _make(tables, decision, settings, seed, kept, progress)
    bundle.save(folder)
    return bundle


def _make(
    tables: Sequence[SessionTable],
    decision: RetrainDecision,
    settings: LearnSettings,
    seed: int,
    kept: Bundle | None,
    progress: Progress | None,
) -> Bundle:
    """Recalibrate or train as decided; `kept` is the bundle whose networks are built on."""
    if decision.repair is Repair.RECALIBRATE and kept is not None:
        bundle = recalibrate(tables, kept, decision.stamp_ms, settings)
    else:
        bundle = learn_bundle(tables, decision.stamp_ms, settings, seed, kept, progress)
    info = dataclasses.replace(bundle.info, reason=decision.reason)
    return dataclasses.replace(bundle, info=info)
