"""The tables of a recipe: every key with its type, its range and its default.

Each section makes the settings that the rest of the package takes, and a default that such settings
have is taken from them, so that it stands in one place. Left out: what concerns more than one table
(`recipe.py`). Torch is not imported, so that a typing error costs no second.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cppncripto_strategy.models.encoders import ENCODERS, encoder_options
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, check_columns
from cppncripto_strategy.models.labels import (
    LABELS,
    Costs,
    LabelSettings,
    label_options,
    label_schema,
)
from cppncripto_strategy.models.labels.barrier import DEFAULT_BARRIER_BPS
from cppncripto_strategy.models.labels.fixed import DEFAULT_THRESHOLD_BPS
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
Count = Annotated[int, Field(ge=1)]
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


class Section(BaseModel):
    """Base of every table of a recipe: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlantedRecipe(Section):
    """The planted market (see `feeds.planted.PlantedSettings`), for source = "planted"."""

    days: Count = 420
    seed: int = 0
    mu: NonNegative = 0.4
    setup_rate: Fraction = 1 / 30
    horizon: Count = 6
    marker_fidelity: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    tau_days: Annotated[float, Field(gt=1)] = 30.0
    sigma: Annotated[float, Field(gt=0, lt=0.1)] = 0.0015
    start: str = "20230102"


class CandlesRecipe(Section):
    """Where candles come from: "planted", or "folder" (a store, or SYMBOL-5m.parquet files)."""

    source: Literal["planted", "folder"] = "folder"
    folder: Path = Path("../candles")
    planted: PlantedRecipe = PlantedRecipe()


class MacroRecipe(Section):
    """MacroNet: what it reads, how it is built, how it is pretrained.

    long_window is in candles (1440 are five days of 5-minute candles). What options there are
    depends on the encoder and the objective: see the `Options` of each.
    """

    enabled: bool = True
    encoder: str = default(LearnSettings, "encoder")
    encoder_options: dict[str, Any] = {}
    objective: str = default(LearnSettings, "objective")
    objective_options: dict[str, Any] = {}
    long_window: Annotated[int, Field(ge=288)] = 1440
    epochs: Count = default(PretrainSettings, "epochs")
    batch_size: Annotated[int, Field(ge=2)] = default(PretrainSettings, "batch_size")
    learning_rate: Annotated[float, Field(gt=0)] = default(PretrainSettings, "learning_rate")
    patience: Count = default(PretrainSettings, "patience")

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, name: str) -> str:
        return ENCODERS.check(name)

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, name: str) -> str:
        return OBJECTIVES.check(name)

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
    """MicroNet: what it reads, how it is built, how it learns. short_window is in candles.

    clock = false hides the time of day from it, so that a window tells only what is in it.
    """

    short_window: Annotated[int, Field(ge=4)] = default(MicroNetSettings, "short_window")
    head: Literal["classes", "regression"] = default(MicroNetSettings, "head")
    channels: Count = default(MicroNetSettings, "channels")
    hidden: Count = default(MicroNetSettings, "hidden")
    components: Count = default(MicroNetSettings, "components")
    clock: bool = True
    initialisations: Count = default(TrainSettings, "initialisations")
    epochs: Count = default(TrainSettings, "epochs")
    warm_epochs: Count = default(LearnSettings, "warm_epochs")
    patience: Count = default(TrainSettings, "patience")
    batch_sessions: Count = default(TrainSettings, "batch_sessions")
    learning_rate: Annotated[float, Field(gt=0)] = default(TrainSettings, "learning_rate")
    weight_decay: NonNegative = default(TrainSettings, "weight_decay")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = default(TrainSettings, "label_smoothing")
    confidence_penalty: NonNegative = default(TrainSettings, "confidence_penalty")
    mirror: bool = default(TrainSettings, "mirror")

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
    """What MicroNet predicts; horizon is in candles.

    kind "trade" leaves at a barrier where barrier_bps is above 0; "barrier" needs one. A kind of
    your own takes `options`, and threshold_bps and barrier_bps where it has options of these names.
    threshold_bps is also what reports call a move.
    """

    kind: str = default(LabelSettings, "kind")
    horizon: Count = default(LabelSettings, "horizon")
    threshold_bps: NonNegative = DEFAULT_THRESHOLD_BPS
    barrier_bps: NonNegative = DEFAULT_BARRIER_BPS
    options: dict[str, Any] = {}

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
    """When networks are retrained and on how many days before.

    retrain = "calendar" retrains every retrain_days; "drift" looks every retrain_days and repairs
    only where the embeddings drifted beyond drift_limit, lowest-cost repair first.
    """

    train_days: Count = default(LearnSettings, "train_days")
    validate_days: Count = default(LearnSettings, "validate_days")
    retrain_days: Count = default(LearnSettings, "retrain_days")
    macro_retrain_days: Count = default(LearnSettings, "macro_retrain_days")
    retrain: Literal["calendar", "drift"] = default(LearnSettings, "retrain")
    drift_limit: Annotated[float, Field(gt=0)] = default(LearnSettings, "drift_limit")


class FeaturesRecipe(Section):
    """Inputs of both networks: the session scaler, and the features by name, in column order.

    columns may name any feature of `models.inputs.features.FEATURES`; "present" has to be one.
    """

    scaler: Literal["robust", "minmax"] = "robust"
    columns: tuple[str, ...] = DEFAULT_COLUMNS

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
    """How scores become signals (see `models.scoring.threshold.ThresholdSettings`)."""

    mode: Literal["adaptive", "static"] = default(ThresholdSettings, "mode")
    quantile: Annotated[float, Field(gt=0, lt=0.5)] = default(ThresholdSettings, "quantile")
    window: Annotated[int, Field(ge=2)] = default(ThresholdSettings, "window")
    band: tuple[float, float] | None = default(ThresholdSettings, "band")

    def settings(self) -> ThresholdSettings:
        """The threshold, as `models.scoring` takes it."""
        return settings_of(ThresholdSettings, self)


class StrategyRecipe(Section):
    """How signals become orders (see `strategy.MacroMicroStrategy`)."""

    fraction: Fraction | None = None
    hold_candles: Annotated[int, Field(ge=0)] = 0
    renew_hold: bool = False
    min_hold: Annotated[int, Field(ge=0)] = 0
    cooldown_candles: Annotated[int, Field(ge=0)] = 0
    stop_pct: Annotated[float, Field(ge=0, lt=100)] = 0.0
    max_daily_loss_pct: Annotated[float, Field(ge=0, lt=100)] = 0.0
    allow_short: bool = False


class BrokerRecipe(Section):
    """The paper account: quote currency, costs per side in basis points."""

    cash: Annotated[float, Field(gt=0)] = 10_000.0
    fee_bps: NonNegative = default(Costs, "fee_bps")
    slippage_bps: NonNegative = default(Costs, "slippage_bps")
