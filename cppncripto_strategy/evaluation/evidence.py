"""Is what we see more than luck? A test by betting that may be looked at after every day.

Somebody who believes that signals earn nothing after costs sells bets on each day's mean result at
fair odds. We start with 1 and stake a share of our wealth each day, chosen from the days before. If
they are right, no way of staking can be expected to gain, and the probability that our wealth ever
reaches 1 / alpha is at most alpha (Ville 1939), however often and whenever somebody looks. So a
wealth of 20 is evidence at 5 %, today or in a year, and nobody has to fix the day beforehand.

**The bet.** x_t in [-1, 1] is day t's mean net result, clipped and divided by the clip. Wealth is
E_t = E_{t-1} (1 + lambda_t x_t) from E_0 = 1, with lambda_t in [0, 1/2] from x_1 .. x_{t-1} alone:
aGRAPA, mean / (variance + mean squared), with a prior of `prior_days` days of mean 0 and variance 1
(Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting": the
approximate GRAPA bets with their regularised estimates). Where E[x_t | days before] <= 0 on every
day, E is a non-negative supermartingale.

**The end of an edge.** From the day on which the evidence opens, bets are laid against it: that the
mean is 0 or more. They are begun anew every day, and their wealths are added up (the e-detector of
Shiryaev-Roberts form; Shin, Ramdas & Rinaldo 2024, "E-detectors: a nonparametric framework for
sequential change detection"): M_t = (M_{t-1} + 1)(1 - lambda x_t), averaged over the fixed stakes
lambda of `CLOSING_STAKES`. While the edge lasts, the mean number of days until M reaches
`closing_days` is at least `closing_days` (their bound on the average run length). When it does, the
evidence is closed, and the first bet starts again from 1 with nothing remembered. The sum over
start days was taken, not the maximum: it is never smaller, so it closes no later, and its guarantee
is the same.

What is assumed: nothing about the shape of the days' results or how they hang together, only that
each day's result is not known in part before the day begins. What is tested is the mean of the
clipped daily means: rare losses beyond the clip count as the clip. One recipe is tested: whoever
tries twenty of them will see one open. After a closing a further chance of alpha begins. An edge
that comes after long losses is seen late, because the bet remembers them. Which signals make x_t is
in `shadow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.errors import RecipeError

MAX_STAKE = 0.5
"""Largest share of the wealth that a day can cost: a single day never ends the bet."""
CLOSING_STAKES = (0.5, 0.25, 0.125, 0.0625)
"""Fixed stakes of the bets against a lasting edge; small ones find slow ends, large ones quick."""


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """How evidence is weighed.

    Parameters
    ----------
    alpha : probability, in (0, 1), with which luck alone may ever open the evidence.
    clip_bps : a day's mean net result is cut at plus and minus this, bps of the price.
    prior_days : days of mean 0 and variance 1 that the estimates behind the stakes begin with.
    closing_days : days with signals that lie, on average and at least, between two false closings.
    per : one bet for the "account" over all its symbols, or one for each "symbol". Each of N
        symbols then needs N / alpha, so that alpha still covers all of them together.
    sides : which signals are judged: those that the account may "trade" as entries (a spot account
        cannot go short on a sell signal), or "both".
    horizon : candles from a signal to its outcome; 0 takes the strategy's holding limit.

    Raises
    ------
    RecipeError
        When a setting is out of its range.
    """

    alpha: float = 0.05
    clip_bps: float = 100.0
    prior_days: int = 1
    closing_days: float = 90.0
    per: Literal["account", "symbol"] = "account"
    sides: Literal["trade", "both"] = "trade"
    horizon: int = 0

    def __post_init__(self) -> None:
        rules = {
            "alpha must lie in (0, 1)": 0 < self.alpha < 1,
            "clip_bps must be positive": 0 < self.clip_bps < float("inf"),
            "prior_days must be at least 1": self.prior_days >= 1,
            "closing_days must be at least 1": 1 <= self.closing_days < float("inf"),
            'per must be "account" or "symbol"': self.per in ("account", "symbol"),
            'sides must be "trade" or "both"': self.sides in ("trade", "both"),
            "horizon must not be negative": self.horizon >= 0,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise RecipeError(f"evidence: {'; '.join(broken)}; found {self}")

    def needed(self, bets: int = 1) -> float:
        """Wealth at which each of `bets` bets is evidence: bets / alpha."""
        return bets / self.alpha

    def clipped(self, net_bps: float) -> float:
        """A day's mean net result in bps as x in [-1, 1]."""
        return min(max(net_bps, -self.clip_bps), self.clip_bps) / self.clip_bps


class EvidenceDay(NamedTuple):
    """What one day did to a bet.

    x : the day's result in [-1, 1]. stake : lambda, in [0, 1/2], fixed before the day.
    wealth : E after the day; it starts again from 1 on the day after a closing.
    closing : M after the day, 0 while the evidence was not open before it.
    open : whether there is evidence after the day.
    """

    x: float
    stake: float
    wealth: float
    closing: float
    open: bool


class Bet:
    """One bet, day by day; lives as long as a run. `weigh` gives the same numbers at once.

    Parameters
    ----------
    needed : wealth that opens the evidence.
    """

    def __init__(self, settings: EvidenceSettings, needed: float) -> None:
        self._settings, self.needed = settings, needed
        self.reset()

    def reset(self) -> None:
        """Start again from a wealth of 1, remembering nothing."""
        self.open = False
        self._begin()

    def _begin(self) -> None:
        self.wealth = 1.0
        self._days, self._sum, self._squares = 0, 0.0, 0.0
        self._against = [0.0] * len(CLOSING_STAKES)

    @property
    def stake(self) -> float:
        """Share of the wealth staked on the coming day: known before it begins."""
        weight = self._days + self._settings.prior_days
        mean = self._sum / weight
        variance = (self._settings.prior_days + self._squares) / weight
        return min(max(mean / (variance + mean * mean), 0.0), MAX_STAKE)

    @property
    def closing(self) -> float:
        """M, the sum of the bets against a lasting edge."""
        return sum(self._against) / len(CLOSING_STAKES)

    def update(self, x: float) -> EvidenceDay:
        """Settle a day whose result is x in [-1, 1]."""
        stake = self.stake
        self.wealth *= 1.0 + stake * x
        self._days += 1
        self._sum += x
        apart = x - self._sum / (self._days + self._settings.prior_days)
        self._squares += apart * apart
        if self.open:
            stakes = zip(self._against, CLOSING_STAKES, strict=True)
            self._against = [(bet + 1.0) * (1.0 - share * x) for bet, share in stakes]
        wealth, closing = self.wealth, self.closing
        if self.open and closing >= self._settings.closing_days:
            self.reset()
        elif wealth >= self.needed:
            self.open = True
        return EvidenceDay(x, stake, wealth, closing, self.open)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain values; `restore` takes it up to the last bit."""
        return {
            "open": self.open,
            "wealth": self.wealth,
            "days": self._days,
            "sum": self._sum,
            "squares": self._squares,
            "against": list(self._against),
        }

    def restore(self, plain: dict[str, Any]) -> None:
        """Continue from what `snapshot` gave."""
        self.open, self.wealth = bool(plain["open"]), float(plain["wealth"])
        self._days, self._sum = int(plain["days"]), float(plain["sum"])
        self._squares = float(plain["squares"])
        self._against = [float(bet) for bet in plain["against"]]


@dataclass(frozen=True, slots=True, eq=False)
class EvidencePath:
    """A bet over N days, arrays (N,) named as the fields of `EvidenceDay`."""

    x: FloatArray
    stake: FloatArray
    wealth: FloatArray
    closing: FloatArray
    open: BoolArray


def weigh(x: FloatArray, settings: EvidenceSettings, needed: float | None = None) -> EvidencePath:
    """The bet over days at once, equal to `Bet` to the last bit.

    Parameters
    ----------
    x : float64 array (N,), daily results in [-1, 1], days without signals left out. No NaN.
    needed : wealth that opens the evidence; None is 1 / alpha.
    """
    needed = settings.needed() if needed is None else needed
    size = len(x)
    stake, wealth, closing = np.zeros(size), np.ones(size), np.zeros(size)
    opened = np.zeros(size, dtype=np.bool_)
    start = 0
    while start < size:
        stake[start:], wealth[start:] = bet(x[start:], settings.prior_days)
        first = _first(wealth[start:] >= needed, start)
        after = min(first + 1, size)
        closing[after:] = closing_sum(x[after:])
        last = _first(closing[after:] >= settings.closing_days, after)
        opened[first:last] = True
        closing[last + 1 :] = 0.0
        start = last + 1
    return EvidencePath(x, stake, wealth, closing, opened)


def _first(holds: BoolArray, offset: int) -> int:
    """Index of the first day that holds, counted from `offset`; behind the last one if none."""
    return offset + (int(np.argmax(holds)) if holds.any() else len(holds))


def bet(x: FloatArray, prior_days: int = 1) -> tuple[FloatArray, FloatArray]:
    """Stakes and wealth, float64 (N,) each, of one bet over results x (N,) in [-1, 1].

    The wealth is the e-process itself: nothing opens or closes it. Stakes use only days before.
    """
    weight = np.arange(1, len(x) + 1) + prior_days
    mean = np.cumsum(x) / weight
    apart = x - mean
    variance = (prior_days + np.cumsum(apart * apart)) / weight
    before = np.concatenate([[0.0], mean])[: len(x)]
    spread = np.concatenate([[1.0], variance])[: len(x)]
    stake = np.clip(before / (spread + before * before), 0.0, MAX_STAKE)
    return stake, np.cumprod(1.0 + stake * x)


def closing_sum(x: FloatArray) -> FloatArray:
    """M (N,): bets that the mean is below 0, begun anew each day and added up.

    The e-detector itself: reaching a threshold does not end it.
    """
    against = np.zeros(len(CLOSING_STAKES))
    sums = np.empty(len(x))
    for day, factors in enumerate(1.0 - np.multiply.outer(x, CLOSING_STAKES)):
        against = (against + 1.0) * factors
        sums[day] = sum(against.tolist()) / len(CLOSING_STAKES)
    return sums
