"""The search space: which recipe keys may vary, over which values, and under which condition.

    [space]
    "threshold.quantile" = { float = [0.01, 0.2], log = true }
    "micro.channels" = { int = [16, 64], step = 8 }
    "macro.encoder" = { choice = ["tcn", "gru"] }
    "macro.encoder_options.hidden" = { int = [16, 64], when = { "macro.encoder" = "gru" } }

A space is checked against the recipe's own ranges before anything runs: both ends of a range and
every choice are put into the recipe and read as any recipe is. Left out: proposing values
(`samplers`), and combinations that are impossible only together: such a candidate fails by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.results import to_plain, to_toml

if TYPE_CHECKING:
    from optuna.trial import Trial

Changes: TypeAlias = dict[str, Any]
"""Dotted recipe keys and the values that a candidate gives them."""

_KINDS = ("int", "float", "choice")
_LARGEST_GRID = 100_000
_WORDS = (*_KINDS, "log", "step", "when")
# What a candidate is judged on is not the candidate's to choose.
_YARDSTICK = {
    "name": "the recipe's name",
    "symbols": "the candles it is judged on",
    "interval": "the candles it is judged on",
    "timerange": "the days it is judged on",
    "seed": "luck: give search.seeds more seeds instead",
    "plugins": "code, and no setting",
    "candles": "the candles it is judged on",
    "broker": "what trading costs",
    "search": "the search itself",
    "space": "the search itself",
    "compare_without_macro": "a second account, which is not judged",
}


@dataclass(frozen=True)
class Dimension:
    """One key that varies.

    Parameters
    ----------
    key : dotted recipe key.
    kind : "int" or "float" (a range, ends included), or "choice".
    values : the two ends of a range, or the choices.
    log : whether a range is searched by its logarithm.
    step : distance between the values of a range; None for any (1 for "int").
    when : other key of the space -> the values of it under which this one varies.
    """

    key: str
    kind: Literal["int", "float", "choice"]
    values: tuple[Any, ...]
    log: bool = False
    step: float | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> dict[Any, Any]:
        """Of each choice, what stands for it in the study: a list or table is its JSON text."""
        plain = (str, int, float, bool)
        return {v if isinstance(v, plain) else json.dumps(v): v for v in self.values}

    def suggest(self, trial: Trial) -> Any:
        """What a trial tries, as the study holds it."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, list(self.labels))
        low, high = self.values
        if self.kind == "int":
            return trial.suggest_int(self.key, low, high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.key, low, high, step=self.step, log=self.log)

    def active(self, changes: Mapping[str, Any]) -> bool:
        """Whether the key varies, given the values of those before it."""
        return all(key in changes and changes[key] in among for key, among in self.when.items())


@dataclass(frozen=True)
class Space:
    """Every dimension, those that others depend on before them."""

    dimensions: tuple[Dimension, ...]

    def __len__(self) -> int:
        return len(self.dimensions)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that vary."""
        return tuple(dimension.key for dimension in self.dimensions)

    def suggest(self, trial: Trial) -> Changes:
        """The values that a trial tries."""
        changes: Changes = {}
        for dimension in self.dimensions:
            if dimension.active(changes):
                changes[dimension.key] = self.value(dimension, dimension.suggest(trial))
        return changes

    @staticmethod
    def value(dimension: Dimension, label: Any) -> Any:
        """What a recipe gets for what the study holds."""
        return dimension.labels[label] if dimension.kind == "choice" else label

    def changes(self, params: Mapping[str, Any]) -> Changes:
        """The values of a finished trial's parameters."""
        return {d.key: self.value(d, params[d.key]) for d in self.dimensions if d.key in params}

    @property
    def grid_size(self) -> int:
        """How many candidates the grid has."""
        return math.prod(len(values) for values in self.grid().values())

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every key, for the grid sampler.

        Raises
        ------
        RecipeError
            When a key has a condition, or a range of numbers without step.
        """
        grid = {dimension.key: list(_grid(dimension)) for dimension in self.dimensions}
        if math.prod(len(values) for values in grid.values()) > _LARGEST_GRID:
            raise RecipeError(
                f"the grid has more than {_LARGEST_GRID:,} candidates: give fewer keys or larger"
                " steps, or take another sampler"
            )
        return grid

    def to_plain(self) -> dict[str, Any]:
        """The space as JSON holds it, to be compared with another."""
        return {
            d.key: to_plain({d.kind: d.values, "log": d.log, "step": d.step, "when": d.when})
            for d in self.dimensions
        }


def _grid(dimension: Dimension) -> Iterator[Any]:
    where = _where(dimension.key)
    if dimension.when:
        raise RecipeError(f"{where}: the grid has no conditional keys: take another sampler")
    if dimension.kind == "choice":
        yield from dimension.labels
        return
    low, high = dimension.values
    if dimension.kind == "float" and dimension.step is None:
        raise RecipeError(f"{where}: the grid needs step = ..., or choice = [...]")
    step = dimension.step or 1
    for number in range(int((high - low) / step + 1e-9) + 1):
        yield low + number * step


def read_space(tables: Mapping[str, Mapping[str, Any]] | None) -> Space:
    """The space that a recipe's or a file's `[space]` describes.

    Raises
    ------
    RecipeError
        When it is missing or empty, or an entry is not understood; the message names the key, and
        the nearest known word for an unknown one.
    """
    if not tables:
        raise RecipeError(
            "there is no search space: give the recipe a table [space], or name a file that has"
            ' one. An entry reads "threshold.quantile" = { float = [0.01, 0.2], log = true }'
        )
    entries = dict(_flat(tables))
    return Space(tuple(_ordered({key: _dimension(key, entry) for key, entry in entries.items()})))


def _flat(tables: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Entries by dotted key, whether the dots were quoted or opened tables."""
    for name, inner in tables.items():
        key = f"{path}{name}"
        if not isinstance(inner, Mapping):
            raise RecipeError(
                f"{_where(key)}: expected a table such as {{ int = [1, 8] }}, found {inner!r}"
            )
        # A table of tables is a longer key; one that holds anything else is an entry.
        if inner and all(isinstance(value, Mapping) for value in inner.values()):
            yield from _flat(inner, f"{key}.")
        else:
            yield key, inner


def _where(key: str) -> str:
    return f'[space] "{key}"'


def _dimension(key: str, entry: Mapping[str, Any]) -> Dimension:
    where = _where(key)
    _refuse_yardstick(key)
    for word in entry:
        if word not in _WORDS:
            close = get_close_matches(word, _WORDS, n=1, cutoff=0.4)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(f"{where}: unknown word {word!r}{hint}; known: {', '.join(_WORDS)}")
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        raise RecipeError(
            f"{where}: exactly one of int = [low, high], float = [low, high], choice = [...] is"
            f" needed, found {', '.join(kinds) or 'none'}"
        )
    kind, when = kinds[0], _conditions(where, entry.get("when", {}))
    if kind == "choice":
        return Dimension(key, "choice", _choices(where, entry), when=when)
    low, high = _ends(where, kind, entry[kind])
    log, step = _scale(where, entry, low, kind)
    if kind == "int":
        return Dimension(key, "int", (low, high), log, step, when)
    return Dimension(key, "float", (float(low), float(high)), log, step, when)


def _refuse_yardstick(key: str) -> None:
    for part, why in _YARDSTICK.items():
        if key == part or key.startswith(f"{part}."):
            raise RecipeError(f"{_where(key)}: a candidate may not choose {why}")


def _choices(where: str, entry: Mapping[str, Any]) -> tuple[Any, ...]:
    choices = entry["choice"]
    if not isinstance(choices, list) or not choices:
        raise RecipeError(f"{where}: choice needs a list of values, found {choices!r}")
    wrong = [word for word in ("log", "step") if word in entry]
    if wrong:
        raise RecipeError(f"{where}: {wrong[0]} belongs to a range, not to choice")
    texts = [json.dumps(choice) for choice in choices]
    if len(set(texts)) != len(texts):
        raise RecipeError(f"{where}: choices repeat: {', '.join(texts)}")
    return tuple(choices)


def _ends(where: str, kind: str, ends: Any) -> tuple[Any, Any]:
    numbers = isinstance(ends, list) and all(_is_number(end, kind) for end in ends)
    if not numbers or len(ends) != 2 or ends[0] > ends[1]:
        raise RecipeError(f"{where}: {kind} needs [lowest, highest], found {ends!r}")
    return ends[0], ends[1]


def _is_number(value: Any, kind: str) -> bool:
    known = isinstance(value, int if kind == "int" else (int, float))
    return known and not isinstance(value, bool) and math.isfinite(value)


def _scale(
    where: str, entry: Mapping[str, Any], low: float, kind: str
) -> tuple[bool, float | None]:
    log, step = entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise RecipeError(f"{where}: log is true or false, found {log!r}")
    if log and low <= 0:
        raise RecipeError(f"{where}: a logarithmic range begins above 0, found {low}")
    if step is None:
        return log, None
    if not _is_number(step, kind) or step <= 0:
        raise RecipeError(f"{where}: step needs a number above 0, found {step!r}")
    if log:
        raise RecipeError(f"{where}: log and step do not go together")
    return log, step


def _conditions(where: str, when: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(when, Mapping):
        raise RecipeError(f"{where}: when needs a table, such as {{ 'macro.encoder' = 'gru' }}")
    return {key: tuple(v) if isinstance(v, list) else (v,) for key, v in when.items()}


def _ordered(dimensions: dict[str, Dimension]) -> Iterator[Dimension]:
    """Each after those it depends on, otherwise as they were written."""
    waiting = dict(dimensions)
    for dimension in dimensions.values():
        _check_conditions(dimension, dimensions)
    while waiting:
        ready = [key for key, d in waiting.items() if not any(k in waiting for k in d.when)]
        if not ready:
            raise RecipeError(
                f"[space]: the conditions of {', '.join(waiting)} go round in a circle"
            )
        yield waiting.pop(ready[0])


def _check_conditions(dimension: Dimension, known: Mapping[str, Dimension]) -> None:
    where = _where(dimension.key)
    for key, among in dimension.when.items():
        if key not in known:
            close = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(f"{where}: when names {key!r}, which is not in the space{hint}")
        other = known[key]
        if other.kind != "choice":
            raise RecipeError(f"{where}: when needs a key with choices, and {key!r} is a range")
        for value in among:
            if value not in other.values:
                choices = ", ".join(map(repr, other.values))
                raise RecipeError(f"{where}: {key!r} never is {value!r}; its choices are {choices}")


def candidate(recipe: Recipe, changes: Mapping[str, Any], name: str = "candidate") -> Recipe:
    """The recipe with some keys changed.

    Raises
    ------
    RecipeError
        When a key is unknown or a value impossible.
    """
    values = recipe.to_plain()
    values["candles"]["folder"] = str(recipe.candles.folder)
    values |= {"compare_without_macro": False}
    values.pop("search", None), values.pop("space", None)
    for key, value in changes.items():
        table, path = values, key.split(".")
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise RecipeError(f"{key!r} is no key of a recipe: {part!r} holds a value")
        table[path[-1]] = value
    return parse_recipe(values, name)


def candidate_toml(changes: Mapping[str, Any]) -> str:
    """The changed keys as the lines of a recipe."""
    tables: dict[str, Any] = {}
    for key, value in changes.items():
        table, path = tables, key.split(".")
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table[path[-1]] = value
    return to_toml(tables)


def extremes(space: Space) -> Iterator[tuple[Dimension, Changes]]:
    """Both ends of every range and every choice, each with the conditions that it needs."""
    by_key = {dimension.key: dimension for dimension in space.dimensions}
    for dimension in space.dimensions:
        for value in dict.fromkeys(map(json.dumps, dimension.values)):
            yield dimension, {**_needed(dimension, by_key), dimension.key: json.loads(value)}


def _needed(dimension: Dimension, by_key: Mapping[str, Dimension]) -> Changes:
    needed: Changes = {}
    for key, among in dimension.when.items():
        needed |= _needed(by_key[key], by_key) | {key: among[0]}
    return needed


def check_space(recipe: Recipe, space: Space) -> dict[str, Recipe]:
    """Refuse a space with a value that no recipe of its kind may have.

    Returns
    -------
    The recipe at every extreme, by what it is called in messages, for further checks.

    Raises
    ------
    RecipeError
        Naming the key of the space, and what is wrong with it as a recipe would say.
    """
    recipes: dict[str, Recipe] = {}
    problems: dict[str, str] = {}
    for dimension, changes in extremes(space):
        text = f"{_where(dimension.key)} at {changes[dimension.key]!r}"
        try:
            recipes[text] = candidate(recipe, changes, text)
        except RecipeError as cause:
            problems.setdefault(dimension.key, str(cause))
    if problems:
        raise RecipeError("\n".join(problems.values()))
    return recipes
