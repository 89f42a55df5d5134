"""A run's recipe: a TOML file, validated into frozen settings.

Every key has a default that works; `runs/demo.toml` shows the ones people change. An unknown key is
an error that names the nearest known one. Relative paths in a recipe are relative to its file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)

from cppncripto_strategy.errors import CandleError, RecipeError
from cppncripto_strategy.evaluation.evidence import EvidenceSettings
from cppncripto_strategy.feeds.clock import DAY_MS, Span, interval_to_ms, utc_to_ms
from cppncripto_strategy.foreign import read_text, reading
from cppncripto_strategy.models.encoders import ENCODERS
from cppncripto_strategy.models.inputs.features import FEATURES
from cppncripto_strategy.models.inputs.terms import default_terms, terms_of
from cppncripto_strategy.models.labels import LABELS
from cppncripto_strategy.models.pretraining import OBJECTIVES, objective_names
from cppncripto_strategy.models.settings import (
    DeviceName,
    LearnSettings,
)
from cppncripto_strategy.plugins import load_plugins
from cppncripto_strategy.recipe_learning import (
    FeaturesRecipe,
    LabelRecipe,
    MacroRecipe,
    MicroRecipe,
    WalkForwardRecipe,
)
from cppncripto_strategy.recipe_search import SearchRecipe
from cppncripto_strategy.recipe_sections import (
    BrokerRecipe,
    CandlesRecipe,
    Section,
    Seed,
    ThresholdRecipe,
    default,
    settings_of,
    table_of,
)
from cppncripto_strategy.recipe_strategy import EvidenceRecipe, StrategyRecipe
from cppncripto_strategy.registry import Registry


class Recipe(Section):
    """A whole run.

    Examples
    --------
    Every key has a default; an impossible one is refused:

    >>> from cppncripto_strategy import Recipe
    >>> recipe = Recipe(symbols=("ETHUSDT",), timerange="20240101-20240401", seed=7)
    >>> recipe.interval, recipe.broker.fee_bps
    ('5m', 10.0)
    >>> Recipe(interval="7m")
    Traceback (most recent call last):
    ...
    pydantic_core._pydantic_core.ValidationError: ...
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    """Name of the run in reports; unset, the file's name."""
    symbols: Annotated[tuple[str, ...], Field(min_length=1)] = ("BTCUSDT",)
    """Symbols traded in one account, such as BTCUSDT."""
    interval: str = "5m"
    """Length of a candle: 1m, 5m, 15m, 1h, ...; it must divide a day."""
    timerange: str | None = None
    """Days traded, all of them out of sample: START-END as YYYYMMDD, UTC, end exclusive. Unset,
    whatever the candles leave after the first training."""
    seed: Seed = 0
    """Seed of everything random in training. The same seed gives the same bits on one machine."""
    device: DeviceName = default(LearnSettings, "device")
    """Where networks learn, and score in a backtest: cpu, cuda, or auto (cuda where there is one).
    Bundles work anywhere. On cuda a seed does not give the same bits, and small batches are no
    faster."""
    compare_without_macro: bool = True
    """Whether a second MicroNet, which never sees an embedding, is trained and traded beside the
    first."""
    plugins: tuple[Path, ...] = ()
    """Python files of your own that register encoders, objectives, features, labels, ..., relative
    to the recipe."""
    candles: CandlesRecipe = CandlesRecipe()
    features: FeaturesRecipe = FeaturesRecipe()
    macro: MacroRecipe = MacroRecipe()
    micro: MicroRecipe = MicroRecipe()
    label: LabelRecipe = LabelRecipe()
    walkforward: WalkForwardRecipe = WalkForwardRecipe()
    threshold: ThresholdRecipe = ThresholdRecipe()
    strategy: StrategyRecipe = StrategyRecipe()
    evidence: EvidenceRecipe = EvidenceRecipe()
    broker: BrokerRecipe = BrokerRecipe()
    search: SearchRecipe | None = None
    """How `cppn-bt tune` searches; other commands do not look at it."""
    space: dict[str, dict[str, Any]] | None = None
    """What `cppn-bt tune` may choose, by dotted key, as in `"micro.channels" = { int = [16, 64] }`;
    other commands do not look at it. See docs/tuning.md."""

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        interval_ms = interval_to_ms(self.interval)
        if DAY_MS % interval_ms:
            raise ValueError(f"interval {self.interval} does not divide a day")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols repeat: {', '.join(self.symbols)}")
        if self.timerange is not None:
            parse_timerange(self.timerange)
        pool = self.macro.pool
        if self.macro.long_window % pool or DAY_MS // interval_ms % pool:
            raise ValueError(
                f"macro.pool = {pool} does not divide a day of {DAY_MS // interval_ms} candles and"
                f" macro.long_window = {self.macro.long_window}: choose one that divides both"
            )
        if pool > 1 and self.macro.encoder == "cppn":
            raise ValueError(
                "macro.pool: encoder 'cppn' averages candles by itself, over its option stride;"
                " leave pool out"
            )
        readers = [name for name in self.terms if terms_of([name])[0].market]
        if readers and self.features.market is None:
            raise ValueError(
                f"macro.terms names {', '.join(readers)}, and features.market no symbol: name one,"
                " such as BTCUSDT"
            )
        if self.macro.objective == "forecast" and "har" not in self.terms:
            raise ValueError(
                "macro.objective = 'forecast' starts from HAR: add 'har' to macro.terms, or leave"
                " terms out"
            )
        if self.strategy.evidence == "wait" and not self._evidence_is_possible():
            horizon = self.evidence_settings().horizon
            raise ValueError(
                f"strategy.evidence = 'wait' would wait always: an outcome {horizon} candles later"
                " is never known on the day of its signal, and only those count; shorten"
                " evidence.horizon (0 is the holding limit, else the label's horizon)"
            )
        for registry, name in self._parts():
            origin = registry.origin(name)
            if origin.kind == "plugin" and Path(origin.name) not in self.plugins:
                raise ValueError(
                    f"{registry.kind} {name!r} comes from {origin.name}, which is not among this"
                    " recipe's plugins = [...]"
                )
        return self

    def _parts(self) -> Iterator[tuple[Registry[Any], str]]:
        """Every registered part that the recipe names."""
        yield ENCODERS, self.macro.encoder
        for name in objective_names(self.macro.objective, self.macro.objective_options):
            yield OBJECTIVES, name
        yield LABELS, self.label.kind
        for name in self.features.columns:
            yield FEATURES, name

    def plugin_digests(self) -> dict[str, str]:
        """SHA-256 of each plugin file by its name; a file that changed is loaded again.

        Raises
        ------
        RecipeError
            When a file cannot be read, or fails while it runs.
        """
        return {plugin.name: plugin.sha256 for plugin in load_plugins(self.plugins)}

    @property
    def interval_ms(self) -> int:
        """Length of a candle in milliseconds."""
        return interval_to_ms(self.interval)

    def evidence_settings(self) -> EvidenceSettings:
        """How evidence is weighed, signals judged as they are traded."""
        return self.evidence.settings(self.strategy.hold_candles or self.label.horizon)

    def strategy_params(self) -> dict[str, Any]:
        """Params of `MacroMicroStrategy` that a backtest and a paper session share."""
        threshold = self.threshold
        return {
            "window": threshold.window,
            "quantile": threshold.quantile,
            "threshold_mode": threshold.mode,
            "band": threshold.band,
            "evidence_settings": self.evidence_settings(),
            **self.strategy.model_dump(),
        }

    def _evidence_is_possible(self) -> bool:
        """Whether an outcome may be known on the day of its signal."""
        return self.evidence_settings().horizon * self.interval_ms < DAY_MS

    def other_rule(self) -> Recipe | None:
        """The same recipe, trading where this one waits for evidence, or waiting where it trades.

        None where `evidence.compare` is off, or where no evidence is possible.
        """
        if not (self.evidence.compare and self._evidence_is_possible()):
            return None
        rule = "trade" if self.strategy.evidence == "wait" else "wait"
        strategy = self.strategy.model_copy(update={"evidence": rule})
        return self.model_copy(update={"strategy": strategy})

    def span(self) -> Span | None:
        """The traded time range, or None for whatever the candles leave after training."""
        return parse_timerange(self.timerange) if self.timerange is not None else None

    @property
    def terms(self) -> tuple[str, ...]:
        """What the embedding holds of a session as it is: those named, or the objective's."""
        if self.macro.terms is not None:
            return self.macro.terms
        return default_terms(self.macro.objective, self.features.market)

    @property
    def subscribed(self) -> tuple[str, ...]:
        """Every symbol whose candles a run needs: those traded, then those only read."""
        return (*self.symbols, *self.beside)

    @property
    def beside(self) -> tuple[str, ...]:
        """Symbols whose candles are read and not traded: the market's, unless it is traded, too."""
        market = self.features.market
        return () if market is None or market in self.symbols else (market,)

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
                market=self.features.market,
                terms=self.terms,
                pool=self.macro.pool,
            ),
            use_macro=use_macro,
            device=self.device,
            label=self.label.settings(self.broker),
            plugins=tuple(f"{name} {sha}" for name, sha in self.plugin_digests().items()),
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

    Examples
    --------
    >>> from pathlib import Path
    >>> from cppncripto_strategy import load_recipe
    >>> _ = Path("mine.toml").write_text('symbols = ["ETHUSDT"]\\n[micro]\\nshort_window = 48\\n')
    >>> recipe = load_recipe(Path("mine.toml"), seed=3)
    >>> recipe.name, recipe.seed, recipe.micro.short_window
    ('mine', 3, 48)
    """
    with reading(path, "recipe", RecipeError):
        values = tomllib.loads(read_text(path))
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "run")
    values.update({key: value for key, value in overrides.items() if value is not None})
    values = _with_absolute_plugins(values, path.parent)
    return _with_absolute_paths(parse_recipe(values, str(path)), path.parent)


def _with_absolute_plugins(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """The same values with whole paths of plugins; what is no list of texts is left as it is."""
    if not _are_paths(values.get("plugins")):
        return values
    paths = [str((base / Path(plugin).expanduser()).resolve()) for plugin in values["plugins"]]
    return {**values, "plugins": paths}


def _are_paths(plugins: Any) -> bool:
    listed = isinstance(plugins, list | tuple)
    return listed and all(isinstance(plugin, str | Path) for plugin in plugins)


def _with_absolute_paths(recipe: Recipe, base: Path) -> Recipe:
    """Paths made absolute, so that the recipe.toml among the results means the same anywhere.

    A planted recipe keeps its candle folder, which nothing reads: what it was made of must not
    depend on where it lay.
    """
    changes: dict[str, Any] = {"macro": recipe.macro.with_paths_from(base)}
    if recipe.candles.source != "planted":
        folder = (base / recipe.candles.folder.expanduser()).resolve()
        changes["candles"] = recipe.candles.model_copy(update={"folder": folder})
    if recipe.broker.exchange_info is not None:
        info = (base / recipe.broker.exchange_info.expanduser()).resolve()
        changes["broker"] = recipe.broker.model_copy(update={"exchange_info": info})
    return recipe.model_copy(update=changes)


def parse_recipe(values: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Validate plain values, after running the plugin files they name (absolute, or from here).

    Raises
    ------
    RecipeError
        As `load_recipe` does.
    """
    values = _with_absolute_plugins(values, Path())
    if _are_paths(values.get("plugins")):  # else validation says what they are
        load_plugins(Path(plugin) for plugin in values["plugins"])
    try:
        return Recipe.model_validate(values)
    except ValidationError as cause:
        problems = [_explain(dict(error)) for error in cause.errors()]
        raise RecipeError(f"{origin}: " + "; ".join(problems)) from cause


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
    model: type[BaseModel] | None = Recipe
    for part in path:
        # The name of a symbol is no key: the table it opens is the one of all symbols.
        fields = {} if model is None else model.model_fields
        model = table_of(fields[part].annotation) if part in fields else model
    return [] if model is None else list(model.model_fields)
