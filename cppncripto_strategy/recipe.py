"""A run's recipe: a TOML file, validated into frozen settings.

Every key has a default that works; `runs/demo.toml` shows the ones people change. An unknown key is
an error that names the nearest known one. Relative paths in a recipe are relative to its file.
"""

from __future__ import annotations

import logging
import re
import tomllib
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cppncripto_strategy.errors import CandleError, RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS, Span, interval_to_ms, utc_to_ms
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, check_columns

log = logging.getLogger(__name__)

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


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

    long_window is in candles (1440 are five days of 5-minute candles); options go to the encoder
    and the objective as they are.
    """

    enabled: bool = True
    encoder: str = "tcn"
    encoder_options: dict[str, Any] = {}
    objective: str = "contrastive"
    objective_options: dict[str, Any] = {}
    long_window: Annotated[int, Field(ge=288)] = 1440
    epochs: Count = 30
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    patience: Count = 6


class MicroRecipe(Section):
    """MicroNet: what it reads, how it is built, how it learns. short_window is in candles.

    clock = false hides the time of day from it, so that a window tells only what is in it.
    """

    short_window: Annotated[int, Field(ge=4)] = 60
    head: Literal["classes", "regression"] = "classes"
    channels: Count = 24
    hidden: Count = 32
    components: Count = 4
    clock: bool = True
    initialisations: Count = 3
    epochs: Count = 24
    warm_epochs: Count = 8
    patience: Count = 6
    batch_sessions: Count = 8
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    weight_decay: NonNegative = 1e-2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    confidence_penalty: NonNegative = 0.0
    mirror: bool = True


class LabelRecipe(Section):
    """What MicroNet foretells; horizon is in candles.

    kind "trade" leaves at a barrier where barrier_bps is above 0; "barrier" needs one.
    """

    kind: Literal["fixed", "barrier", "trade"] = "fixed"
    horizon: Count = 48
    threshold_bps: NonNegative = 25.0
    barrier_bps: NonNegative = 100.0


class WalkForwardRecipe(Section):
    """When networks are retrained and on how many days before.

    retrain = "calendar" retrains every retrain_days; "drift" looks every retrain_days and repairs
    only where the embeddings drifted beyond drift_limit, cheapest repair first.
    """

    train_days: Count = 300
    validate_days: Count = 30
    retrain_days: Count = 28
    macro_retrain_days: Count = 364
    retrain: Literal["calendar", "drift"] = "calendar"
    drift_limit: Annotated[float, Field(gt=0)] = 1.25


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

    mode: Literal["adaptive", "static"] = "adaptive"
    quantile: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    window: Annotated[int, Field(ge=2)] = 2016
    band: tuple[float, float] | None = None


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
    """The paper account: quote currency, costs a side in basis points."""

    cash: Annotated[float, Field(gt=0)] = 10_000.0
    fee_bps: NonNegative = 10.0
    slippage_bps: NonNegative = 1.0


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
        if self.label.kind == "barrier" and self.label.barrier_bps == 0:
            raise ValueError("label.kind = 'barrier' needs label.barrier_bps above 0")
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
    changes: dict[str, Any] = {}
    if recipe.candles.source != "planted":
        folder = (base / recipe.candles.folder.expanduser()).resolve()
        changes["candles"] = recipe.candles.model_copy(update={"folder": folder})
    genome = recipe.macro.encoder_options.get("genome")
    if isinstance(genome, str):
        path = (base / Path(genome).expanduser()).resolve()
        options = {**recipe.macro.encoder_options, "genome": str(path)}
        changes["macro"] = recipe.macro.model_copy(update={"encoder_options": options})
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
