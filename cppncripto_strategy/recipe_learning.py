"""The sections of a recipe that decide what the networks learn, and the settings they make.

Left out: what the account may do with their scores (`recipe_sections`).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

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
from cppncripto_strategy.models.settings import (
    LearnSettings,
    MicroNetSettings,
    PretrainSettings,
    TrainSettings,
)
from cppncripto_strategy.recipe_sections import (
    BrokerRecipe,
    NonNegative,
    Section,
    default,
    settings_of,
)

log = logging.getLogger(__name__)


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
    month's, its share of falls), hours (mean hourly ln variance of the last day, and of its last 1,
    3, 6 and 12 hours less it), market_hours. Each takes numbers from the encoder's 128; days back
    mean a longer warm-up. Unset, none; with objective forecast all, the market's where there is
    one."""
    pool: Count = 1
    """Candles averaged into one row before the encoder reads the long window: 12 of 5 minutes make
    hourly rows, and 30 days 720 of them. An encoder's stride counts rows: with 12, give it 1."""
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
    """Directions of the embedding that reach MicroNet, its components. Fewer overfit less."""
    reading: Literal["variance", "predictive"] = default(MicroNetSettings, "reading")
    """Which components: those of most variance (principal components), or those that say most of
    the days around their midnight, each kept by how well it predicts the coming ones."""
    clock: bool = True
    """Whether MicroNet sees the time of day. Without it, a score follows from the window's candles
    alone."""
    initialisations: Count = default(TrainSettings, "initialisations")
    """Networks trained from different seeds; the best on validation days is kept."""
    trial_epochs: Count = default(TrainSettings, "trial_epochs")
    """Epochs after which only the better half of these networks goes on, and again after as many
    more, until one is left; as many as `epochs` let each of them learn to its end."""
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
        shape = "channels", "hidden", "components", "reading", "head", "clock"
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
