"""The recipe's `[strategy]` and `[evidence]` tables: how signals become orders, and when they may.

Left out: the orders (`strategy`), and the test that evidence is (`evaluation.evidence`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cppncripto_strategy.evaluation.evidence import EvidenceSettings
from cppncripto_strategy.models.options import Count
from cppncripto_strategy.recipe_sections import Fraction, Section, Whole, default, settings_of


class StrategyRecipe(Section):
    """How signals become orders."""

    fraction: Fraction | None = None
    """Share of the equity per position; unset divides it equally among the symbols."""
    sizing: Literal["fraction", "volatility"] = "fraction"
    """How large a position is: `fraction` of the equity, or as much as keeps the account's
    volatility at `target_volatility` by the day's forecast. The latter controls risk and promises
    no return; without a forecast of the day it sends no entry."""
    target_volatility: Annotated[float, Field(gt=0, le=10)] = 0.4
    """Volatility of the account, annual, as a share of its equity (0.4 is 40 % a year), where
    `sizing` is "volatility". Each symbol may use its `fraction` of it, and no borrowing."""
    hold_candles: Whole = 0
    """Candles after which a position is closed; 0 is no limit."""
    renew_hold: bool = False
    """Whether a fresh signal in the position's direction restarts `hold_candles`."""
    min_hold: Whole = 0
    """Candles before an opposite signal may close a position. Stops always may."""
    cooldown_candles: Whole = 0
    """Candles after an exit without a new entry."""
    stop_pct: Annotated[float, Field(ge=0, lt=100)] = 0.0
    """Percent from the entry price at which a close triggers an exit at the next open; 0 is no
    stop."""
    max_daily_loss_pct: Annotated[float, Field(ge=0, lt=100)] = 0.0
    """Percent of the day's starting equity; once it is lost, no entry until the next UTC day. 0 is
    no limit."""
    evidence: Literal["trade", "wait"] = "trade"
    """Whether entries wait until there is evidence that signals earn more than their costs, and
    end once it is gone, or are sent all the same. Exits never wait. See `[evidence]`."""
    allow_short: bool = False
    """Whether a sell signal may open a short position, of coins lent without interest; spot
    accounts cannot. Cash is not lent: what a cover cannot pay for stays open."""


class EvidenceRecipe(Section):
    """When there is evidence that signals earn more than they cost, at any moment somebody looks.

    `strategy.evidence` says whether the account waits for it.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] = default(EvidenceSettings, "alpha")
    """Probability with which luck alone may ever open the evidence. A wealth of 1 / alpha opens it.
    """
    clip_bps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = default(
        EvidenceSettings, "clip_bps"
    )
    """A day's mean net result is cut at plus and minus this, in bps of the price."""
    prior_days: Count = default(EvidenceSettings, "prior_days")
    """Days of mean 0 and deviation `clip_bps` that the estimates behind the stakes begin with; more
    stake less at the start."""
    closing_days: Annotated[float, Field(ge=1, allow_inf_nan=False)] = default(
        EvidenceSettings, "closing_days"
    )
    """Days with signals that lie, on average and at least, between two false closings of evidence
    whose edge lasts. Fewer close sooner once it is gone."""
    per: Literal["account", "symbol"] = default(EvidenceSettings, "per")
    """One bet over all symbols of the account, or one for each symbol; each of N then needs
    N / alpha."""
    sides: Literal["trade", "both"] = default(EvidenceSettings, "sides")
    """Which signals are judged: those the account may enter on (buys, and sells where it may go
    short), or both sides always."""
    horizon: Whole = default(EvidenceSettings, "horizon")
    """Candles from a signal to its outcome; 0 takes `strategy.hold_candles` or, where that is no
    limit, `label.horizon`. Outcomes of a later UTC day do not count."""
    compare: bool = True
    """Whether the run is traded once more under the other rule, to show what waiting cost or
    saved."""

    def settings(self, horizon: int) -> EvidenceSettings:
        """How evidence is weighed, with the horizon (candles) where this table leaves it open."""
        return settings_of(EvidenceSettings, self, horizon=self.horizon or horizon)
