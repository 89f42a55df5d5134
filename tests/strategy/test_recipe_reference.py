"""docs/recipe.md: current, complete, and each key explained with its unit."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from cppncripto_strategy.models.encoders import ENCODERS, encoder_options
from cppncripto_strategy.models.pretraining import OBJECTIVES, objective_options
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.recipe_reference import documented, kind_of, render, sections
from cppncripto_strategy.recipe_search import SearchRecipe

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
UNITS = (
    r"bps|percent|candles?|days|day|epochs?|share|probability|seeds?|weight|factor|quote currency|"
    r"deviations?|channels|units|components|networks|sessions|windows|per step|signals"
)
KEYS = [
    pytest.param(field, id=f"{path}.{name}".lstrip("."))
    for path, model in sections(Recipe)
    for name, field in model.model_fields.items()
    if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
]


def test_the_page_is_what_the_models_say() -> None:
    """A key, default or range that changed, with the page left behind."""
    fresh = "python -m cppncripto_strategy.recipe_reference > docs/recipe.md"
    assert render() == PAGE.read_text("utf-8"), f"write it anew: {fresh}"


@pytest.mark.parametrize("field", KEYS)
def test_every_key_is_explained(field) -> None:
    """A key whose meaning has to be looked for in the code, or whose number has no unit."""
    description = field.description or ""
    assert len(description.split()) >= 3
    assert description.rstrip().endswith(".")
    if "number" in kind_of(field):
        assert re.search(rf"\b({UNITS})\b", description, re.IGNORECASE), description


def test_every_default_on_the_page_is_a_recipe() -> None:
    """A default printed in a form that the recipe itself refuses."""
    values: dict[str, object] = {}
    table = values
    for line in PAGE.read_text("utf-8").partition("## Features")[0].splitlines():
        heading = re.fullmatch(r"## `\[(.+)\]`", line)
        if heading:
            table = values
            for part in heading[1].split("."):
                table = table.setdefault(part, {})  # type: ignore[assignment]
        row = re.match(r"\| `(\w+)` \| .*? \| `(.+?)` \| ", line)
        if row:
            table[row[1]] = tomllib.loads(f"value = {row[2]}")["value"]
    assert len(values) > 10
    shown, expected = parse_recipe(values).to_plain(), Recipe().to_plain()
    assert shown.pop("candles")["planted"].pop("setup_rate") == pytest.approx(1 / 30, rel=1e-5)
    expected.pop("candles")
    expected["broker"]["filters"] = {"SYMBOL": {}}  # a table of which every key may be left out
    expected["search"] = SearchRecipe().model_dump(mode="json", exclude_none=True)
    assert shown == expected


def test_every_option_of_the_package_is_explained() -> None:
    """An encoder or objective whose options stand nowhere, or stand there without a word."""
    page = PAGE.read_text("utf-8")
    for registry, options_of in ((ENCODERS, encoder_options), (OBJECTIVES, objective_options)):
        for name in registry.names():
            if registry.origin(name).kind == "package":
                assert f"## Options of {registry.kind} `{name}`" in page
                options = type(options_of(name, {}))
                assert set(documented(options)) == set(options.model_fields), name


def test_types_ranges_and_choices_are_read_from_the_model() -> None:
    """A constraint hidden in an alias or a union, left out of the page."""

    class Inner(BaseModel):
        share: Annotated[float, Field(gt=0, le=1)] | None = None
        kind: Literal["a", "b"] = "a"
        pair: tuple[float, float] | None = None
        names: Annotated[tuple[str, ...], Field(min_length=1)] = ("x",)
        count: Annotated[int, Field(ge=1)] = Field(3, lt=10)

    kinds = {name: kind_of(field) for name, field in Inner.model_fields.items()}
    assert kinds == {
        "share": "number, above 0, at most 1",
        "kind": '`"a"`, `"b"`',
        "pair": "list of 2: number, number",
        "names": "list, each text; at least 1 of them",
        "count": "whole number, at least 1, below 10",
    }
