"""The tables of a recipe: every key with its type, its range and its default.

Each section makes the settings that the rest of the package takes, and a default that such settings
have is taken from them, so that it stands in one place. Left out: what concerns more than one table
(`recipe.py`). Torch is not imported, so that a typing error costs no second.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.models.encoders import ENCODERS, encoder_options
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, check_columns
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS, market_columns
from cppncripto_strategy.models.inputs.terms import check_terms
from cppncripto_strategy.models.labels import (
    LABELS,
    Costs,
    LabelSettings,
    label_options,
    label_schema,
)
from cppncripto_strategy.models.labels.barrier import DEFAULT_BARRIER_BPS
from cppncripto_strategy.models.labels.fixed import DEFAULT_THRESHOLD_BPS
from cppncripto_strategy.models.options import LARGEST, Count
from cppncripto_strategy.models.pretraining import OBJECTIVES, objective_options
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.models.settings import (
    LearnSettings,
    MicroNetSettings,
    PretrainSettings,
    TrainSettings,
)

log = logging.getLogger(__name__)

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


class MacroRecipe(Section):
    """MacroNet: what it reads, how it is built, how it is pretrained.

    What options there are depends on the encoder and the objective: see below.
    """

    enabled: bool = True
    """Whether there is a MacroNet. Without one, MicroNet trades under a zero embedding."""
    encoder: Annotated[str, AfterValidator(ENCODERS.check)] = default(LearnSettings, "encoder")
    """What reads the long window: tcn, gru, transformer, cppn, or one of a plugin."""
    encoder_options: dict[str, Any] = {}
    """Options of the encoder, such as `{ channels = 32 }`; what is left out keeps the encoder's
    default."""
    objective: Annotated[str, AfterValidator(OBJECTIVES.check)] = default(
        LearnSettings, "objective"
    )
    """What the encoder is pretrained on: contrastive, autoencoder, masked, forecast, or one of a
    plugin."""
    objective_options: dict[str, Any] = {}
    """Options of the objective; what is left out keeps the objective's default."""
    long_window: Annotated[int, Field(ge=288, le=LARGEST)] = 1440
    """Candles before 00:00 UTC that MacroNet and the session's scaler see (1440 are five days of
    5-minute candles). More candles mean a longer warm-up."""
    terms: Annotated[tuple[str, ...] | None, AfterValidator(check_terms)] = None
    """What the embedding holds of a session as it is, known at its 00:00 UTC: weekday (of the day
    that begins), har (ln realised variance of the last 1, 5, 22 and 30 days), market_har (that of
    `features.market`), yesterday (the last day's return over its volatility, its volume against the
    month's, its share of falls). Each takes numbers from the encoder's 128; days back mean a longer
    warm-up. Unset, none; with objective forecast all, market_har where there is a market."""
    epochs: Count = default(PretrainSettings, "epochs")
    """Pretraining epochs, at most."""
    batch_size: Annotated[int, Field(ge=2, le=LARGEST)] = default(PretrainSettings, "batch_size")
    """Long windows per pretraining step."""
    learning_rate: Annotated[float, Field(gt=0)] = default(PretrainSettings, "learning_rate")
    """Learning rate of pretraining, per step of AdamW."""
    patience: Count = default(PretrainSettings, "patience")
    """Epochs without a better validation loss after which pretraining stops."""

    @field_validator("encoder_options")
    @classmethod
    def _known_encoder_options(cls, values: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "encoder" in info.data:  # else its own error says enough
            encoder_options(info.data["encoder"], values)
        return values

    @field_validator("objective_options")
    @classmethod
    def _known_objective_options(
        cls, values: dict[str, Any], info: ValidationInfo
    ) -> dict[str, Any]:
        if "objective" in info.data:
            objective_options(info.data["objective"], values)
        return values

    def with_paths_from(self, base: Path) -> MacroRecipe:
        """The same section, paths among the options taken from the folder `base`."""
        encoder = encoder_options(self.encoder, self.encoder_options).absolute(base)
        objective = objective_options(self.objective, self.objective_options).absolute(base)
        options = {
            "encoder_options": encoder.requested(),
            "objective_options": objective.requested(),
        }
        return self.model_copy(update=options)

    def pretrain_settings(self) -> PretrainSettings:
        """How long and how fast MacroNet learns."""
        return settings_of(PretrainSettings, self)

    def network(self) -> dict[str, Any]:
        """MacroNet's part of `LearnSettings`, files among the options read.

        Raises
        ------
        RecipeError
            When a file that an option names cannot be used.
        """
        encoder = encoder_options(self.encoder, self.encoder_options).inlined()
        objective = objective_options(self.objective, self.objective_options).inlined()
        return {
            "encoder": self.encoder,
            "encoder_options": encoder.requested(),
            "objective": self.objective,
            "objective_options": objective.requested(),
            "pretrain": self.pretrain_settings(),
        }


class MicroRecipe(Section):
    """MicroNet: what it reads, how it is built, how it learns."""

    short_window: Annotated[int, Field(ge=4, le=LARGEST)] = default(
        MicroNetSettings, "short_window"
    )
    """Candles that MicroNet sees at each decision (60 are five hours of 5-minute candles)."""
    head: Literal["classes", "regression"] = default(MicroNetSettings, "head")
    """Three classes (score = p_buy - p_sell), or regression (score = tanh of the output)."""
    channels: Count = default(MicroNetSettings, "channels")
    """Channels of the convolutions. More fit more, and cost time."""
    hidden: Count = default(MicroNetSettings, "hidden")
    """Units of the layer before the output."""
    components: Count = default(MicroNetSettings, "components")
    """Principal components of the embedding that reach MicroNet. Fewer overfit less."""
    clock: bool = True
    """Whether MicroNet sees the time of day. Without it, a score follows from the window's candles
    alone."""
    initialisations: Count = default(TrainSettings, "initialisations")
    """Networks trained from different seeds; the best on validation days is kept."""
    epochs: Count = default(TrainSettings, "epochs")
    """Epochs of a training from the start, at most."""
    warm_epochs: Count = default(LearnSettings, "warm_epochs")
    """Epochs of a retraining that begins from the previous weights, at most."""
    patience: Count = default(TrainSettings, "patience")
    """Epochs without a better validation loss after which training stops."""
    batch_sessions: Count = default(TrainSettings, "batch_sessions")
    """Sessions (days of one symbol) per training step."""
    learning_rate: Annotated[float, Field(gt=0)] = default(TrainSettings, "learning_rate")
    """Learning rate, per step of AdamW."""
    weight_decay: NonNegative = default(TrainSettings, "weight_decay")
    """Weight decay of AdamW: a weight's share taken off per unit of learning rate."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = default(TrainSettings, "label_smoothing")
    """Share of a label's probability given to the other classes."""
    confidence_penalty: NonNegative = default(TrainSettings, "confidence_penalty")
    """Weight of the negative entropy added to the loss; more makes scores less confident."""
    mirror: bool = default(TrainSettings, "mirror")
    """Whether half of the sessions of each step are mirrored: returns negated, buy and sell
    exchanged."""

    def train_settings(self) -> TrainSettings:
        """How long and how hard MicroNet learns."""
        return settings_of(TrainSettings, self)

    def network(self) -> dict[str, Any]:
        """MicroNet's part of `LearnSettings`."""
        shape = "channels", "hidden", "components", "head", "clock"
        return {
            "short_window": self.short_window,
            "micro_options": {name: getattr(self, name) for name in shape},
            "train": self.train_settings(),
            "warm_epochs": self.warm_epochs,
        }


class LabelRecipe(Section):
    """What MicroNet learns to predict.

    A kind of your own takes `options`, and `threshold_bps` and `barrier_bps` where it has options
    of these names.
    """

    kind: str = default(LabelSettings, "kind")
    """What a label says: the return over the horizon (fixed), the barrier that is touched first
    (barrier), the net result of the simulated trade (trade), or a kind of a plugin."""
    horizon: Count = default(LabelSettings, "horizon")
    """Candles ahead that a label looks; as many are purged before each boundary."""
    threshold_bps: NonNegative = DEFAULT_THRESHOLD_BPS
    """Smallest move that counts as up or down, in bps, for kind "fixed", and what reports call a
    move. Below the costs of a round trip, a right prediction loses money."""
    barrier_bps: NonNegative = DEFAULT_BARRIER_BPS
    """Distance of the barriers from the close, in bps: kind "barrier" needs them, kind "trade"
    leaves there, unless it is 0."""
    options: dict[str, Any] = {}
    """Further options of a kind that comes from a plugin."""

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, name: str) -> str:
        return LABELS.check(name)

    @model_validator(mode="after")
    def _check(self) -> LabelRecipe:
        for name in ("threshold_bps", "barrier_bps"):
            if name in self.options:
                raise ValueError(f"options.{name}: write {name} beside kind instead")
        if self.kind == "barrier" and self.barrier_bps == 0:
            raise ValueError("kind = 'barrier' needs barrier_bps above 0")
        label_options(self.kind, self.kind_options())
        return self

    def kind_options(self) -> dict[str, Any]:
        """Plain values of the kind's options."""
        # Keys of every recipe, which most kinds do not have: those they have not are not theirs.
        shared = {"threshold_bps": self.threshold_bps, "barrier_bps": self.barrier_bps}
        known = label_schema(self.kind).model_fields
        return {**{name: shared[name] for name in shared if name in known}, **self.options}

    def settings(self, broker: BrokerRecipe) -> LabelSettings:
        """The label, with the costs of the account that trades it."""
        costs = settings_of(Costs, broker)
        return LabelSettings(self.kind, self.horizon, self.kind_options(), costs)


class WalkForwardRecipe(Section):
    """When networks are retrained, and on how many days before."""

    train_days: Count = default(LearnSettings, "train_days")
    """Days that each training learns from."""
    validate_days: Count = default(LearnSettings, "validate_days")
    """Days after them that decide when training stops."""
    retrain_days: Count = default(LearnSettings, "retrain_days")
    """Days between two retrainings of MicroNet (or between two looks at the drift)."""
    macro_retrain_days: Count = default(LearnSettings, "macro_retrain_days")
    """Days between two trainings of MacroNet from the start."""
    retrain: Literal["calendar", "drift"] = default(LearnSettings, "retrain")
    """By calendar, or only where the embeddings drifted, the lowest-cost repair first."""
    drift_limit: Annotated[float, Field(gt=0)] = default(LearnSettings, "drift_limit")
    """Drift above which `retrain = "drift"` repairs, as a factor of the baseline distance among
    training days."""


class FeaturesRecipe(Section):
    """Inputs of both networks."""

    scaler: Literal["robust", "minmax"] = "robust"
    """How a session's features are scaled: by median and interquartile range, or by minimum and
    maximum."""
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    """Features that both networks read, by name, in column order: those of the package or of a
    plugin. `present` has to be one."""
    market: str | None = None
    """Symbol whose candles the columns `market_...` read, beside each traded symbol's own, such as
    BTCUSDT. It needs candles, and need not be traded. Where columns names none of its columns,
    market_log_return, market_volatility_48, market_volume_z and market_present are added."""

    @model_validator(mode="before")
    @classmethod
    def _add_market_columns(cls, values: Any) -> Any:
        """A market that is named and not read would change nothing."""
        if not isinstance(values, dict) or values.get("market") is None:
            return values
        columns = tuple(values.get("columns", DEFAULT_COLUMNS))
        if any(str(name).startswith("market_") for name in columns):
            return values
        return {**values, "columns": (*columns, *MARKET_COLUMNS)}

    @model_validator(mode="after")
    def _named_market(self) -> FeaturesRecipe:
        readers = market_columns(self.columns)
        if readers and self.market is None:
            raise ValueError(
                f"{', '.join(readers)} read a market symbol's candles: name it, as in market ="
                " 'BTCUSDT'"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _rename_taker(cls, values: Any) -> Any:
        """`taker = true` of older recipes, for one more version."""
        if not isinstance(values, dict) or "taker" not in values:
            return values
        values = dict(values)
        taker = values.pop("taker")
        if not isinstance(taker, bool):
            raise ValueError('features.taker is an old key: name "taker_imbalance" in columns')
        log.warning(
            "features.taker is an old key, understood for one more version: name"
            ' "taker_imbalance" in features.columns instead'
        )
        if taker:
            values["columns"] = (*values.get("columns", DEFAULT_COLUMNS), "taker_imbalance")
        return values

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        check_columns(columns)
        return columns


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


class StrategyRecipe(Section):
    """How signals become orders."""

    fraction: Fraction | None = None
    """Share of the equity per position; unset divides it equally among the symbols."""
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
    allow_short: bool = False
    """Whether a sell signal may open a short position. Spot accounts cannot."""


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
