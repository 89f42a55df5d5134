"""What a person asks a search for: a recipe, a file with a space, and what they change of it.

Optuna is not imported here, so that a mistake is reported at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.foreign import read_object, read_text, reading
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.results import to_toml, write_text
from cppncripto_strategy.tuning.space import candidate

_TABLES = ("search", "space")


def with_search(recipe: Recipe, file: Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with the tables of a file over its own, and single keys of [search] over both.

    Parameters
    ----------
    file : TOML with [search], [space] or both; a [space] replaces the recipe's, keys of [search]
        replace single ones.

    Raises
    ------
    RecipeError
        When the file cannot be read, holds anything else, or a key is unknown or impossible.
    """
    tables = {} if file is None else _read(file)
    values = recipe.to_plain()
    values["candles"]["folder"] = str(recipe.candles.folder)
    chosen = {key: value for key, value in overrides.items() if value is not None}
    values["search"] = {**values.get("search", {}), **tables.get("search", {}), **chosen}
    if "space" in tables:
        values["space"] = tables["space"]
    return parse_recipe(values, str(file or recipe.name))


def _read(file: Path) -> dict[str, Any]:
    with reading(file, "search space", RecipeError):
        tables = tomllib.loads(read_text(file))
    for name in tables:
        if name not in _TABLES:
            close = get_close_matches(name, _TABLES, n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(
                f"{file}: unknown table {name!r}{hint}: a file beside a recipe holds [search] and"
                " [space]"
            )
    return tables


def adopt(recipe: Recipe, folder: Path, number: int, to: Path) -> Path:
    """Write the recipe of a trial as a file of its own.

    Raises
    ------
    RecipeError
        When the study has no such trial, its values do not suit the recipe (any more), or the file
        exists.
    """
    path = folder / "trials" / f"{number:05d}.json"
    if not path.is_file():
        kept = sorted(int(p.stem) for p in path.parent.glob("*.json"))
        known = f"there are {kept[0]} to {kept[-1]}" if kept else "it has none yet"
        raise RecipeError(f"the study in {folder} has no finished trial {number}: {known}")
    with reading(path, "record of a trial", RecipeError):
        changes = dict(read_object(path)["changes"])
    chosen = candidate(recipe, changes, f"trial {number}")
    values = chosen.model_copy(update={"compare_without_macro": recipe.compare_without_macro})
    if to.exists():
        raise RecipeError(f"{to} exists: give another file with --to, or move it away")
    head = f"# Trial {number} of the search in {folder.resolve()}.\n# It changes: "
    listed = ", ".join(f"{key} = {value!r}" for key, value in changes.items())
    plain = values.to_plain()
    plain["candles"]["folder"] = str(recipe.candles.folder)
    write_text(to, f"{head}{listed or 'nothing'}\n{to_toml(plain)}")
    return to
