"""A run's recipe: a TOML file, validated into frozen settings.

Every key has a default that works; `runs/demo.toml` shows the ones people change. An unknown key is
an error that names the nearest known one. Relative paths in a recipe are relative to its file.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cppncripto_strategy.errors import CandleError, RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS, Span, interval_to_ms, utc_to_ms
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


class Recipe(Section):
    """A whole run.

    timerange is `start-end` as dates, end exclusive: the candles that are traded, all of them out
    of sample. compare_without_macro trains and trades a second MicroNet that never sees the
    embedding.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    symbols: Annotated[tuple[str, ...], Field(min_length=1)] = ("BTCUSDT",)
    interval: str = "5m"
    timerange: str | None = None
    seed: int = 0
    compare_without_macro: bool = True
    candles: CandlesRecipe = CandlesRecipe()
    features: FeaturesRecipe = FeaturesRecipe()
    macro: MacroRecipe = MacroRecipe()
    micro: MicroRecipe = MicroRecipe()
    label: LabelRecipe = LabelRecipe()
    walkforward: WalkForwardRecipe = WalkForwardRecipe()
    threshold: ThresholdRecipe = ThresholdRecipe()
    strategy: StrategyRecipe = StrategyRecipe()
    broker: BrokerRecipe = BrokerRecipe()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        interval_ms = interval_to_ms(self.interval)
        if DAY_MS % interval_ms:
            raise ValueError(f"interval {self.interval} does not divide a day")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols repeat: {', '.join(self.symbols)}")
        if self.timerange is not None:
            parse_timerange(self.timerange)
        return self

    @property
    def interval_ms(self) -> int:
        """Length of a candle in milliseconds."""
        return interval_to_ms(self.interval)

    def span(self) -> Span | None:
        """The traded time range, or None for whatever the candles leave after training."""
        return parse_timerange(self.timerange) if self.timerange is not None else None

    def learn_settings(self, use_macro: bool = True) -> LearnSettings:
        """Everything that decides what a bundle becomes, but candles and seed.

        Parameters
        ----------
        use_macro : False for the network "without macro".

        Raises
        ------
        RecipeError
            When a file that an option names cannot be used.
        """
        from cppncripto_strategy.models.inputs.sessions import SessionSettings

        return settings_of(
            LearnSettings,
            self.walkforward,
            session=SessionSettings(
                interval_ms=self.interval_ms,
                long_window=self.macro.long_window,
                scaler=self.features.scaler,
                names=self.features.columns,
            ),
            use_macro=use_macro,
            label=self.label.settings(self.broker),
            **self.macro.network(),
            **self.micro.network(),
        )

    def to_plain(self) -> dict[str, Any]:
        """Nested plain values without unset (None) keys, as TOML holds them."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return plain


def parse_timerange(text: str) -> Span:
    """Span of "20240101-20240901" (dates, end exclusive, UTC).

    Raises
    ------
    RecipeError
        When it is not two dates with one hyphen between them, or the end is not after the start.
    """
    parts = text.split("-")
    try:
        if len(parts) != 2 or any(len(part) != 8 for part in parts):
            raise CandleError("two dates of eight digits are needed")
        start, end = (utc_to_ms(part) for part in parts)
    except CandleError as cause:
        raise RecipeError(
            f"timerange {text!r} is not understood ({cause}): expected START-END such as"
            " 20240101-20240901, end exclusive"
        ) from cause
    if end <= start:
        raise RecipeError(f"timerange {text!r} ends before it starts")
    return Span(start, end)


def load_recipe(path: Path, **overrides: Any) -> Recipe:
    """Read and validate a recipe; `overrides` replace top-level keys after reading.

    Raises
    ------
    RecipeError
        When the file cannot be read, is not TOML, or has an unknown or impossible setting; the
        message names the key, and the nearest known key for an unknown one.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise RecipeError(f"recipe {path} cannot be read: {cause.strerror or cause}") from cause
    except tomllib.TOMLDecodeError as cause:
        raise RecipeError(f"recipe {path} is not valid TOML: {cause}") from cause
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "run")
    values.update({key: value for key, value in overrides.items() if value is not None})
    return _with_absolute_paths(parse_recipe(values, str(path)), path.parent)


def _with_absolute_paths(recipe: Recipe, base: Path) -> Recipe:
    """Paths made absolute, so that the recipe.toml among the results means the same anywhere.

    A planted recipe keeps its candle folder, which nothing reads: what it was made of must not
    depend on where it lay.
    """
    changes: dict[str, Any] = {"macro": recipe.macro.with_paths_from(base)}
    if recipe.candles.source != "planted":
        folder = (base / recipe.candles.folder.expanduser()).resolve()
        changes["candles"] = recipe.candles.model_copy(update={"folder": folder})
    return recipe.model_copy(update=changes)


def parse_recipe(values: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Validate plain values. Raises RecipeError as `load_recipe` does."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as cause:
        problems = [_explain(dict(error)) for error in cause.errors()]
        raise RecipeError(f"{origin}: " + "; ".join(problems)) from cause


def shipped_recipe(name: str) -> Path:
    """Path of a recipe that comes with the package, such as "demo".

    Raises
    ------
    RecipeError
        When there is none of this name.
    """
    folder = Path(str(files("cppncripto_strategy.runs")))
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.toml"))
        raise RecipeError(f"no recipe {name!r} is shipped; there are: {', '.join(known)}")
    return path


def _explain(error: dict[str, Any]) -> str:
    """One pydantic error as a sentence."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path) or "the recipe"
    if error["type"] != "extra_forbidden":
        return f"{key}: {str(error['msg']).removeprefix('Value error, ')}"
    known = _known_keys(path[:-1])
    close = get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown key {key!r}{hint}; known here: {', '.join(sorted(known))}"


def _known_keys(path: list[str]) -> list[str]:
    """Keys of the table at a path."""
    model: Any = Recipe
    for part in path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
