"""The tables of a recipe: every key with its type, its range and its default.

Each section makes the settings that the rest of the package takes, and a default that such settings
have is taken from them, so that it stands in one place. Left out: what the networks learn
(`recipe_learning`), and what concerns more than one table (`recipe`). Torch is not imported, so
that a typing error costs no second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.models.labels import (
    Costs,
)
from cppncripto_strategy.models.options import LARGEST, Count
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings

Fraction = Annotated[float, Field(gt=0, le=1)]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NonNegative = Annotated[float, Field(ge=0)]
S = TypeVar("S")


def default(settings: type[Any], name: str) -> Any:
    """The default that a settings dataclass gives one of its fields: its only home."""
    (found,) = (f.default for f in dataclasses.fields(settings) if f.name == name)
    return found


def settings_of(settings: Callable[..., S], section: Section, **more: Any) -> S:
    """Settings made of a section's keys of the same names, and of `more`."""
    known = type(section).model_fields
    fields = dataclasses.fields(settings)  # type: ignore[arg-type]  # of a dataclass
    names = [f.name for f in fields if f.name in known and f.name not in more]
    return settings(**{name: getattr(section, name) for name in names}, **more)


def table_of(annotation: Any) -> type[BaseModel] | None:
    """The table that a key opens, or each of a symbol's; None where it holds a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(table_of, get_args(annotation))), None)


class Section(BaseModel):
    """Base of every table of a recipe: frozen, no unknown keys.

    The text below a key is its description in docs/recipe.md, unit included.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class PlantedRecipe(Section):
    """The planted market, for `candles.source = "planted"`. One market per symbol."""

    days: Annotated[int, Field(ge=1, le=36_525)] = 420
    """Days of candles to make, UTC."""
    seed: Seed = 0
    """Seed of every draw; the second symbol takes the next seed, and so on."""
    mu: NonNegative = 0.4
    """Strength of the answer to a setup: drift of a whole response in its own standard deviations.
    0 is the null market, in which nothing can be predicted."""
    setup_rate: Fraction = 1 / 30
    """Probability that a candle outside a response is a setup."""
    horizon: Count = 6
    """Candles that a response lasts."""
    marker_fidelity: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    """Probability that a day's volume shows its regime. 0.5 hides it altogether."""
    tau_days: Annotated[float, Field(gt=1)] = 30.0
    """Mean length of a regime in days."""
    sigma: Annotated[float, Field(gt=0, lt=0.1)] = 0.0015
    """Volatility of one candle: standard deviation of its log return, as a fraction (0.004 is 40
    bps)."""
    start: str = "20230102"
    """First day, as YYYYMMDD, UTC."""


class CandlesRecipe(Section):
    """Where candles come from."""

    source: Literal["planted", "folder"] = "folder"
    """Made-up candles with a known answer, or those of `folder`."""
    folder: Path = Path("../candles")
    """A candle store, or a folder of files such as BTCUSDT-5m.parquet."""
    planted: PlantedRecipe = PlantedRecipe()


class ThresholdRecipe(Section):
    """How scores become signals."""

    mode: Literal["adaptive", "static"] = default(ThresholdSettings, "mode")
    """Trailing quantiles of the symbol's own past scores, or the quantiles of the bundle's
    validation scores, fixed."""
    quantile: Annotated[float, Field(gt=0, lt=0.5)] = default(ThresholdSettings, "quantile")
    """Share of the scores on each side that become signals. Smaller means fewer trades."""
    window: Annotated[int, Field(ge=2, le=LARGEST)] = default(ThresholdSettings, "window")
    """Past scores that the quantiles are made of, in candles (2016 are a week of 5-minute candles).
    """
    band: tuple[float, float] | None = default(ThresholdSettings, "band")
    """Fewest and most signals per day; outside it, the quantile widens or narrows day by day."""

    def settings(self) -> ThresholdSettings:
        """The threshold, as `models.scoring` takes it."""
        return settings_of(ThresholdSettings, self)


class FiltersRecipe(Section):
    """The exchange's rules for one symbol, as `[broker.filters.BTCUSDT]`.

    A key that is left out keeps what is known otherwise. 0 is no rule.
    """

    quantity_step: NonNegative | None = None
    """Step that quantities are a multiple of, base units. It is the minimum quantity too, where
    that is left out."""
    price_tick: NonNegative | None = None
    """Step that limit and stop prices are a multiple of, quote units."""
    min_quantity: NonNegative | None = None
    """Smallest quantity of an order, base units."""
    max_quantity: NonNegative | None = None
    """Largest quantity of an order, base units."""
    min_notional: NonNegative | None = None
    """Smallest value (quantity x price) of an order, quote units."""
    market_quantity_step: NonNegative | None = None
    """Step of market orders' quantities in base units, where they have one of their own."""
    market_min_quantity: NonNegative | None = None
    """Smallest quantity of a market order in base units, where it has one of its own."""
    market_max_quantity: NonNegative | None = None
    """Largest quantity of a market order in base units, where it has one of its own."""

    def over(self, filters: SymbolFilters) -> SymbolFilters:
        """These rules, and the others as they are."""
        minimum = self.quantity_step if self.min_quantity is None else self.min_quantity
        rules = {
            "lot_step": self.quantity_step,
            "tick_size": self.price_tick,
            "min_qty": minimum,
            "max_qty": self.max_quantity,
            "min_notional": self.min_notional,
            "market_lot_step": self.market_quantity_step,
            "market_min_qty": self.market_min_quantity,
            "market_max_qty": self.market_max_quantity,
        }
        # The shortest decimals of a float are those that somebody wrote.
        given: dict[str, Any] = {n: Decimal(repr(v)) for n, v in rules.items() if v is not None}
        return dataclasses.replace(filters, **given)

    @property
    def settles_all(self) -> bool:
        """Whether step, tick, maximum and minimum notional are all here."""
        named = (self.quantity_step, self.price_tick, self.max_quantity, self.min_notional)
        return None not in named


class BrokerRecipe(Section):
    """The simulated account and its costs."""

    cash: Annotated[float, Field(gt=0)] = 10_000.0
    """Cash at the start, in quote currency."""
    fill_without_trades: bool = False
    """Whether orders fill on a candle of volume 0, in which nobody traded. Off, they are cancelled
    there with the reason no_trades."""
    fee_bps: NonNegative = default(Costs, "fee_bps")
    """Taker fee in bps per side; a round trip pays it twice."""
    slippage_bps: NonNegative = default(Costs, "slippage_bps")
    """How much worse than the open an order fills, in bps per side."""
    exchange_info: Path | None = None
    """A recorded answer of Binance's GET /api/v3/exchangeInfo: the exchange's rules for the symbols
    in it. Unset, those that `fetch` kept beside the candles, else what the candles tell."""
    filters: dict[str, FiltersRecipe] | None = None
    """Rules of single symbols, before any other source."""
