"""The recipe's reference, docs/recipe.md, made of the recipe's own models.

`python -m cppncripto_strategy.recipe_reference > docs/recipe.md` writes it anew; a test compares.
What a key means is its field's description, which is tested to be there; types, ranges, choices and
defaults are read from the models. Left out: rules over several keys (their errors explain them),
and parts that come from plugins.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cppncripto_strategy.models.encoders import ENCODERS, encoder_options
from cppncripto_strategy.models.inputs.features import FEATURES
from cppncripto_strategy.models.options import LARGEST
from cppncripto_strategy.models.pretraining import OBJECTIVES, objective_options
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.recipe_sections import table_of
from cppncripto_strategy.registry import Registry

HEAD = """\
# Recipe

A recipe is a TOML file that describes a run. Every key has a default; an unknown key is an error
that names the nearest known one. Relative paths are relative to the recipe's file. Numbers are
finite, and whole numbers are at most 1,000,000,000 where no lower limit is given. Start from one
that is shipped, such as `runs/demo.toml`.

```toml
symbols = ["BTCUSDT"]
timerange = "20240101-20240901"

[micro]
short_window = 60
```

*This page is generated: `python -m cppncripto_strategy.recipe_reference > docs/recipe.md`.*
"""
_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
}
# Attributes of a field's constraints, as pydantic keeps them, and their words.
_BOUNDS = {
    "gt": "above {}",
    "ge": "at least {}",
    "lt": "below {}",
    "le": "at most {}",
    "min_length": "at least {} of them",
    "max_length": "at most {} of them",
    "pattern": "matching `{}`",
}


def render(recipe: type[BaseModel] = Recipe) -> str:
    """The whole page as Markdown."""
    blocks = [HEAD]
    for path, model in sections(recipe):
        heading = f"`[{path}]`" if path else "Top level"
        about = re.split(r"\n\w+\n---", inspect.cleandoc(model.__doc__ or ""))[0].rstrip()
        blocks.append("\n".join([f"## {heading}\n", about, "", *_table(model), ""]))
    return "\n".join([*blocks, *_parts()])


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """(TOML path, model) of a model and of every table inside it, in order of their fields."""
    yield path, model
    for name, field in model.model_fields.items():
        inner = table_of(field.annotation)
        if inner is not None:
            whole = inner in (field.annotation, *get_args(field.annotation))
            below = name if whole else f"{name}.SYMBOL"
            yield from sections(inner, f"{path}.{below}" if path else below)


def _parts() -> Iterator[str]:
    """What may be named in a recipe: features, and the options of encoders and objectives."""
    yield "## Features\n"
    yield "For `features.columns`: " + ", ".join(f"`{n}`" for n in _built_in(FEATURES)) + ".\n"
    tables: list[tuple[str, Registry[Any], Callable[[str, dict[str, Any]], BaseModel]]] = [
        ("encoder", ENCODERS, encoder_options),
        ("objective", OBJECTIVES, objective_options),
    ]
    for kind, registry, options_of in tables:
        for name in _built_in(registry):
            yield f"## Options of {kind} `{name}`\n"
            yield f"For `macro.{kind}_options`.\n"
            yield "\n".join([*_table(type(options_of(name, {}))), ""])


def _built_in(registry: Registry[Any]) -> list[str]:
    """Names of this package's own parts: what else is installed or loaded is not documented."""
    return [name for name in registry.names() if registry.origin(name).kind == "package"]


def _table(model: type[BaseModel]) -> list[str]:
    """Lines of the table of a section's own keys; those that are tables have their own section."""
    said = documented(model)
    rows = [
        [f"`{name}`", kind_of(field), _default_of(field), _sentence(said.get(name, ""))]
        for name, field in model.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    ]
    head = ["| key | value | default | what it is |", "| --- | --- | --- | --- |"]
    return [*head, *("| " + " | ".join(row) + " |" for row in rows)] if rows else []


def documented(model: type[BaseModel]) -> dict[str, str]:
    """What each field is: its description, else its entry among the docstring's Parameters."""
    text = inspect.cleandoc(model.__doc__ or "").partition("Parameters\n----------\n")[2]
    entries = re.findall(r"^(\w+) : (.*(?:\n    .*)*)", text, flags=re.MULTILINE)
    own = {name: field.description for name, field in model.model_fields.items()}
    return dict(entries) | {name: text for name, text in own.items() if text}


def _sentence(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat[:1].upper() + flat[1:]


def kind_of(field: FieldInfo) -> str:
    """What a key may hold, with its range or choices, in words."""
    return _kind(field.annotation, tuple(field.metadata))


def _kind(annotation: Any, metadata: tuple[Any, ...]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0], (*_flat(inner[1:]), *metadata))
    if origin in (Union, UnionType):
        known = [part for part in inner if part is not type(None)]
        return " or ".join(_kind(part, metadata) for part in known)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in inner)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    if origin is dict or annotation is dict:
        return "table" if table_of(annotation) is None else "table per symbol"
    if origin in (tuple, list):
        return _many(inner, metadata)
    return ", ".join([_KINDS.get(annotation, "value"), *_ranges(metadata)])


def _flat(metadata: tuple[Any, ...]) -> Iterator[Any]:
    """Constraints of an annotation; a pydantic Field holds several."""
    for item in metadata:
        yield from item.metadata if isinstance(item, FieldInfo) else (item,)


def _many(inner: tuple[Any, ...], metadata: tuple[Any, ...]) -> str:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return "; ".join([f"list, each {_kind(inner[0], ())}", *_ranges(metadata)])
    return f"list of {len(inner)}: " + ", ".join(_kind(part, ()) for part in inner)


def _ranges(metadata: tuple[Any, ...]) -> Iterator[str]:
    for attribute, text in _BOUNDS.items():
        for item in metadata:
            bound = getattr(item, attribute, None)
            if bound is not None and bound != LARGEST:  # of all alike: said once, in HEAD
                yield text.format(_number(bound))


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _default_of(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, Path):
        return f'`"{value.as_posix()}"`'
    if isinstance(value, float):
        return f"`{value:.6g}`"
    if value == {}:
        return "empty"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    print(render(), end="")
