"""Learning a MacroNet: the encoder pretrained by its objective, then standardised on those days.

Where the objective learns to forecast, what the network adds to the linear forecast is kept as
weights of the embedding. Left out: MicroNet, and what a bundle is made of (`learner`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.feeds.clock import ms_to_date
from cppncripto_strategy.models.bundle import Bundle
from cppncripto_strategy.models.device import resolve_device
from cppncripto_strategy.models.inputs.outcomes import MEAN_DAYS, OUTCOMES
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.macronet import MacroNet, build_macronet
from cppncripto_strategy.models.pretraining import Objective, build_objective, pretrain
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.progress import Progress

# The mean of a network's forecast and the linear one adds half of what the network would.
CORRECTION_SHARE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class LearnedMacro:
    """A MacroNet and how it was learned.

    Parameters
    ----------
    net : None without macro. curves : its loss by epoch. options : its encoder's.
    correction : float64 (2, E + 1), see `Forecaster`; None where the objective makes no forecast.
    """

    net: MacroNet | None
    curves: dict[str, Any]
    options: dict[str, Any]
    correction: FloatArray | None = None


def learn_macronet(
    train: SessionSet,
    validation: SessionSet,
    until_ms: int,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None = None,
    progress: Progress | None = None,
) -> LearnedMacro:
    """MacroNet: kept, where there is a previous bundle, else fresh; none without macro.

    Parameters
    ----------
    train, validation : sessions to learn from, and to stop on. until_ms : end of the days that it
        may know, UTC ms.

    Raises
    ------
    BundleError
        When the encoder was chosen on later candles, or on other features.
    RecipeError, TrainingError
        As `build_macronet`, `build_objective` and `pretrain` do.
    """
    if not settings.use_macro:
        return LearnedMacro(None, {}, {})
    if previous is not None:
        kept, forecaster = previous.info, previous.forecaster
        added = None if forecaster is None else forecaster.correction
        return LearnedMacro(previous.macro, kept.curves["macro"], kept.encoder_options, added)
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
        settings.session.macro_day_rows,
    )
    _require_known_days(objective, settings)

    def report(done: int, total: int, text: str) -> None:
        if progress is not None:
            progress(done, 2 * total, f"MacroNet {text}")

    pretraining = settings.pretrain
    device = resolve_device(settings.device)
    curve = pretrain(macro.encoder, objective, train, validation, pretraining, seed, report, device)
    macro.calibrate(embed_set(macro, train, raw=True, device=device))
    macro.eval()
    options = macro.encoder.options.to_json()
    return LearnedMacro(macro, curve.to_json(), options, _correction(macro, objective))


def _correction(macro: MacroNet, objective: Objective) -> FloatArray | None:
    """Half of what the network adds to ln volatility and ln range, by the embedding, (2, E + 1)."""
    learned = objective.correction()
    if learned is None:
        return None
    weights, constants = (part.detach().double().numpy() for part in learned)  # (3, width), (3,)
    center, spread = (part.double().numpy() for part in (macro.center, macro.spread))
    width = macro.encoder.width
    added = np.zeros((len(OUTCOMES), macro.size + 1))
    added[:, :width] = weights * spread[:width]
    added[:, -1] = constants + weights @ center[:width]
    added[OUTCOMES.index("log_variance")] /= 2  # of volatility, not of variance
    rows = [OUTCOMES.index(name) for name in ("log_variance", "log_range")]
    return CORRECTION_SHARE * added[rows]


def _require_known_days(objective: Objective, settings: LearnSettings) -> None:
    """Refuse an objective whose outcomes begin before what the bundle is known to depend on.

    Raises
    ------
    RecipeError
        When the days that outcomes are measured against reach back beyond the warm-up.
    """
    session = settings.session
    reach = MEAN_DAYS * session.day_candles + 1
    if objective.needs_facts and session.warmup < reach:
        raise RecipeError(
            f"objective {settings.objective!r} measures a day against the {MEAN_DAYS} before it:"
            f" {reach:,} candles, and the warm-up is {session.warmup:,}. Add 'har' to macro.terms,"
            " or raise macro.long_window"
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
