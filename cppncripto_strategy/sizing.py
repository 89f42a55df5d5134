"""How large a position is: a fixed share of the equity, or what a volatility target allows.

Volatility targeting holds less of a symbol on days that are expected to be wild and more on quiet
ones, so that the account's own volatility stays near a number that was chosen. It controls risk and
promises no return: on real candles it did not raise the Sharpe ratio. What it assumes: a position
is sized when it is entered and kept as it is; symbols move as one (correlation 1), so the account's
volatility is at most the target where forecasts are right, and lower where symbols differ or where
the account is in cash. Left out: borrowing (the shares held never exceed the equity), resizing of
an open position, and correlations.

Source: Moreira & Muir 2017 (volatility-managed portfolios), by the forecast volatility rather than
last month's variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.returns import DAYS_PER_YEAR
from cppncripto_strategy.lines import Reader, line_reader, named_line

# Shares are floored to this step: the last bits of a forecast must not move a quantity.
STEP = 1e-3


class Share(NamedTuple):
    """A share of the equity; where it is 0, why (as in `fills`), and the same in words."""

    value: float
    reason: str = ""
    detail: str = ""


class Sized(Protocol):
    """What sizing knows of a symbol: its feed, its score indicator, and the bars decided on."""

    @property
    def data(self) -> Any:
        """The Backtrader feed."""

    @property
    def score(self) -> Any:
        """The score indicator, whose `macro` has the forecast."""

    @property
    def bars(self) -> int:
        """Bars decided on, the present one among them."""


class Sizing(Protocol):
    """How large an entry is."""

    def share(self, symbol: Sized, broker: Any) -> Share:
        """Share of the equity for an entry into a symbol at its present bar."""


class FixedFraction:
    """The same share of the equity for every entry."""

    def __init__(self, fraction: float) -> None:
        self._share = Share(fraction)

    def share(self, symbol: Sized, broker: Any) -> Share:
        """The fraction."""
        return self._share


class VolatilityTarget:
    """Shares whose expected volatility adds up to the account's target.

    An open position whose own forecast is missing counts with that of the symbol to be entered:
    nothing is remembered from bar to bar, so a restarted session sizes as an uninterrupted one.

    Parameters
    ----------
    target : volatility of the account, annual, as a fraction of its equity.
    fraction : share of the target that one symbol may use, in (0, 1].
    symbols : all symbols of the account.

    Raises
    ------
    RecipeError
        When the target is not in (0, 10], or a symbol's score has no forecast of volatility.
    """

    def __init__(self, target: float, fraction: float, symbols: Sequence[Sized]) -> None:
        if not 0 < target <= 10:
            raise RecipeError(f"target_volatility must lie in (0, 10], got {target!r}")
        self._daily, self._fraction, self._symbols = target / DAYS_PER_YEAR**0.5, fraction, symbols
        self._lines = {id(symbol): _forecast_line(symbol) for symbol in symbols}
        self._readers: dict[int, Reader] = {}

    def share(self, symbol: Sized, broker: Any) -> Share:
        """What the target leaves for the symbol: by its own part, by the account, by the equity."""
        if not self._readers:  # only possible once Cerebro has fixed the lines' buffers
            self._readers = {key: line_reader(line) for key, line in self._lines.items()}
        expected = self._expected(symbol)
        if not expected > 0:
            return Share(0.0, "no_forecast", "the day's volatility is not forecast: no entry")
        invested, used, equity = 0.0, 0.0, broker.getvalue()
        for other in self._symbols:
            held = abs(broker.getposition(other.data).size)
            if not held or other is symbol:  # what it holds itself is dust
                continue
            part, forecast = held * other.data.close[0] / equity, self._expected(other)
            invested += part
            used += part * (forecast if forecast > 0 else expected)
        left = min(self._fraction * self._daily, self._daily - used) / expected
        value = math.floor(min(left, 1.0 - invested) / STEP) * STEP
        if value <= 0:
            return Share(
                0.0,
                "volatility_target",
                f"{100 * used:.2f} % of the day's {100 * self._daily:.2f} % of volatility and"
                f" {100 * invested:.0f} % of the equity are in use, and {100 * expected:.2f} % are"
                " expected",
            )
        return Share(value)

    def _expected(self, symbol: Sized) -> float:
        """Forecast at the symbol's present bar, NaN for none."""
        return self._readers[id(symbol)](symbol.bars - 1) if symbol.bars else math.nan


def make_sizing(
    name: str, target_volatility: float, fraction: float, symbols: Sequence[Sized]
) -> Sizing:
    """The sizing of this name: "fraction" or "volatility".

    Raises
    ------
    RecipeError
        When there is no such sizing, or it cannot be used here.
    """
    if name == "fraction":
        return FixedFraction(fraction)
    if name == "volatility":
        return VolatilityTarget(target_volatility, fraction, symbols)
    raise RecipeError(f'sizing must be "fraction" or "volatility", got {name!r}')


def _forecast_line(symbol: Sized) -> Any:
    line = named_line(getattr(symbol.score, "macro", None), "volatility")
    if line is None:
        raise RecipeError(
            f'sizing "volatility" needs a forecast of {symbol.data._name!r}: a score whose `macro`'
            " is a MacroEmbedding (or any indicator with a line called volatility, the expected"
            " volatility of the day as a fraction)"
        )
    return line
