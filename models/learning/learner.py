"""Learning one bundle: MacroNet pretrained or kept, MicroNet trained under it, both judged.

    |<----- train ----->| purge |<- embargo ->| validate |  trained_until

Nothing a bundle learned from closes after its `trained_until`: labels that reach past a boundary
are purged on the left of it, and candles whose short window and features reach back across it are
embargoed on the right. (The macro windows of the first validation days do reach back: MacroNet and
the scalers know no label.)
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_date
from cppncripto_strategy.models.bundle import Bundle, BundleInfo
from cppncripto_strategy.models.device import resolve_device
from cppncripto_strategy.models.forecasting.forecaster import fit_forecaster
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable
from cppncripto_strategy.models.learning.data import (
    embed_set,
    fingerprint,
    micro_data,
    reach_ms,
    return_scale,
)
from cppncripto_strategy.models.learning.macro import LearnedMacro, learn_macronet
from cppncripto_strategy.models.learning.reading import day_profiles, predictive_reading
from cppncripto_strategy.models.learning.training import MicroData, TrainedMicro, train_micronet
from cppncripto_strategy.models.macronet import MacroNet
from cppncripto_strategy.models.parts import plugin_parts
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.progress import Progress

log = logging.getLogger(__name__)

# More than the adaptive threshold needs before it is active (288), so a new bundle trades at once.
SEED_QUANTILES = 401
# About 401 over the golden ratio squared; 401 is prime, so steps of it visit every quantile once.
SEED_STRIDE = 153


@dataclass(frozen=True, slots=True, eq=False)
class Days:
    """The days that a bundle learns from.

    Parameters
    ----------
    tables : session tables of the symbols.
    train, validation : sessions before and after the split.
    start_ms, split_ms, until_ms : where the two parts begin and end, UTC ms.
    """

    tables: Sequence[SessionTable]
    train: SessionSet
    validation: SessionSet
    start_ms: int
    split_ms: int
    until_ms: int

    @classmethod
    def before(cls, tables: Sequence[SessionTable], until_ms: int, settings: LearnSettings) -> Days:
        """The days of both parts before a stamp. Raises TrainingError when they are too few."""
        split = until_ms - settings.validate_days * DAY_MS
        start = split - settings.train_days * DAY_MS
        train = SessionSet.between(tables, start, split)
        validation = SessionSet.between(tables, split, until_ms)
        _require(train, validation, start, split, until_ms)
        return cls(tables, train, validation, start, split, until_ms)


def learn_bundle(
    tables: Sequence[SessionTable],
    until_ms: int,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None = None,
    progress: Progress | None = None,
    pretrained: Bundle | None = None,
) -> Bundle:
    """Train one bundle on candles that closed by `until_ms`.

    With `previous`, its MacroNet is kept and MicroNet starts from its weights; without, both are
    trained afresh. With `pretrained`, its MacroNet is taken, and MicroNet trained afresh: the same
    bundle, where `cache.macro_key` of both is the same.

    Raises
    ------
    TrainingError
        When there are too few sessions to train or to validate on.
    BundleError
        When the encoder was chosen on later candles.
    """
    days = Days.before(tables, until_ms, settings)
    kept = previous or pretrained
    macro = learn_macronet(days.train, days.validation, until_ms, settings, seed, kept, progress)
    parts = days.train, days.validation
    contexts = [_contexts(part, macro.net, settings) for part in parts]
    data = _micro_data(days, contexts, settings)
    reading = _reading(days, contexts[0][0], settings)
    micro = _micronet(data, reading, settings, seed, previous, progress)
    bank = np.concatenate([context.numpy() for context, _ in contexts])
    return Bundle(
        info=_info(days, settings, seed, macro, micro),
        macro=macro.net,
        micro=micro.net,
        score_seed=score_quantiles(micro.validation_scores),
        bank=bank,
        bank_ms=np.concatenate([part.start_ms() for part in parts]),
        forecaster=fit_forecaster(
            SessionSet(days.train.tables, np.concatenate([part.members for part in parts])),
            bank,
            from_ms=reach_ms(settings, until_ms),
            earn_from_ms=days.split_ms,
            until_ms=until_ms,
            correction=macro.correction,
        ),
    )


def _info(
    days: Days, settings: LearnSettings, seed: int, macro: LearnedMacro, micro: TrainedMicro
) -> BundleInfo:
    """What the bundle says of itself."""
    warmup_ms = settings.session.warmup * settings.session.interval_ms
    return BundleInfo(
        session=settings.session,
        encoder=settings.encoder if macro.net is not None else None,
        encoder_options=macro.options,
        objective=settings.objective if macro.net is not None else None,
        micro=settings.micro_settings(),
        label=settings.label.to_json(),
        symbols=tuple(table.symbol for table in days.tables),
        trained_from_ms=int(days.train.start_ms().min()) - warmup_ms,
        trained_until_ms=days.until_ms,
        seed=seed,
        data_fingerprint=fingerprint(days.tables, reach_ms(settings, days.until_ms), days.until_ms),
        validation={
            "loss": micro.validation_loss,
            "temperature": micro.temperature,
            "labelled_candles": len(micro.validation_scores),
            "sessions": len(days.validation),
        },
        curves={"macro": macro.curves, "micro": micro.curves},
        plugins=plugin_parts(settings),
    )


def _contexts(
    sessions: SessionSet, macro: MacroNet | None, settings: LearnSettings
) -> tuple[Tensor, Tensor]:
    """Embeddings of every session, and of its mirror."""
    embed = functools.partial(embed_set, macro, sessions, device=resolve_device(settings.device))
    return embed(), embed(mirrored=True)


def _micro_data(
    days: Days, contexts: Sequence[tuple[Tensor, Tensor]], settings: LearnSettings
) -> tuple[MicroData, MicroData]:
    """What MicroNet learns from and stops by, purged and embargoed at the split."""
    labels = [settings.label.compute(table.grid) for table in days.tables]
    field_rows = settings.micro_settings().receptive_field
    reach_rows = settings.session.table.memory + field_rows
    embargo_ms = reach_rows * settings.session.interval_ms
    scale = return_scale(labels, days.train, days.start_ms, days.split_ms)
    make = functools.partial(
        micro_data,
        labels=labels,
        receptive_field=field_rows,
        return_scale=scale,
    )
    train, validation = contexts
    judged_ms = days.split_ms + embargo_ms
    return (
        make(days.train, contexts=train, from_ms=0, until_ms=days.split_ms),
        make(days.validation, contexts=validation, from_ms=judged_ms, until_ms=days.until_ms),
    )


def _micronet(
    data: tuple[MicroData, MicroData],
    reading: FloatArray | None,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
    progress: Progress | None,
) -> TrainedMicro:
    """Train MicroNet, afresh or from the bundle before."""
    how, warm = settings.train, None
    if previous is not None:
        how = dataclasses.replace(how, epochs=settings.warm_epochs, initialisations=1)
        warm = previous.micro

    def report(done: int, total: int, text: str) -> None:
        if progress is not None:
            half = 0 if previous is not None else total
            progress(half + done, half + total, f"MicroNet {text}")

    return train_micronet(
        *data,
        settings.micro_settings(),
        how,
        seed,
        warm_start=warm,
        progress=report,
        device=resolve_device(settings.device),
        reading=reading,
    )


def _reading(days: Days, context: Tensor, settings: LearnSettings) -> FloatArray | None:
    """The directions that predict the coming days; None for the principal components."""
    shape = settings.micro_settings()
    if shape.reading == "variance" or not settings.use_macro:
        return None
    reading = predictive_reading(
        context.numpy().astype(np.float64),
        day_profiles(days.train, days.split_ms),
        days.train.start_ms(),
        shape.components,
    )
    if reading is None:
        log.info(
            "%d training days are too few to see what the embedding says of the coming days (or it"
            " never varies): MicroNet reads its principal components",
            len(days.train),
        )
    return reading


def score_quantiles(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Evenly spaced quantiles of scores of any shape, (SEED_QUANTILES,), scattered in order.

    The threshold forgets its oldest scores first: in ascending order it would forget the lowest,
    and a short history would hold the highest alone. Any stretch of this order is spread evenly.
    """
    levels = np.linspace(0, 1, SEED_QUANTILES)
    quantiles: NDArray[np.float64] = np.quantile(scores.astype(np.float64), levels)
    return quantiles[np.arange(SEED_QUANTILES) * SEED_STRIDE % SEED_QUANTILES]


def _require(train: SessionSet, validation: SessionSet, start: int, split: int, until: int) -> None:
    """Refuse to learn from next to nothing. Raises TrainingError."""
    if len(train) < 10 or len(validation) < 3:
        days = [ms_to_date(ms) for ms in (start, split, until)]
        raise TrainingError(
            f"too few days to learn from: {len(train)} usable sessions in {days[0]} to {days[1]}"
            f" (needs 10) and {len(validation)} for validation until {days[2]} (needs 3). Start the"
            " trading range later, import earlier candles, or lower train_days and validate_days"
        )
