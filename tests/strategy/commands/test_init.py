"""`cppn-bt init`: a recipe that loads, every key of it known, and commands that are understood."""

from __future__ import annotations

import re
import shlex
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.cli import cli
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.new_recipe import (
    TRAIN_DAYS,
    VALIDATE_DAYS,
    fetch_from,
    recipe_text,
    traded_span,
)
from cppncripto_strategy.recipe import load_recipe, parse_recipe

TODAY = date(2026, 11, 27)


def init(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["init", *(str(a) for a in arguments)])


def test_recipe_loads_and_the_next_three_commands_are_named(tmp_path: Path) -> None:
    """A first recipe that the first command refuses."""
    folder = tmp_path / "my trading"
    done = init(folder, "--symbols", "btcusdt, ETHUSDT")
    assert done.exit_code == 0, done.output
    recipe = load_recipe(folder / "recipe.toml")
    assert recipe.symbols == ("BTCUSDT", "ETHUSDT")
    assert recipe.candles.folder == folder / "candles"
    lines = [line.strip() for line in done.output.splitlines() if line.startswith("  cppn-bt ")]
    words = [shlex.split(line) for line in lines]
    assert [line[1] for line in words] == ["fetch", "run", "paper"]
    assert words[0][-1] == str(folder / "candles")
    assert words[1][-1] == words[2][-1] == str(folder / "recipe.toml")
    for line in words:
        command = cli.get_command(None, line[1])  # type: ignore[arg-type]
        assert command is not None
        command.make_context(line[1], line[2:])


def test_help_names_the_intervals_that_are_taken() -> None:
    """An interval of the exchange's, refused after the help said nothing of a limit."""
    help_text = init("--help").output
    shortest, longest = re.search(r"from (\w+) to\s+(\w+)", help_text).groups()  # type: ignore[union-attr]
    for interval, taken in ((shortest, True), (longest, True), ("30m", False), ("1s", False)):
        if taken:
            assert parse_recipe(tomllib.loads(recipe_text(("BTCUSDT",), interval, TODAY)))
        else:
            with pytest.raises(RecipeError, match="expected one from 1m to 15m"):
                recipe_text(("BTCUSDT",), interval, TODAY)


def test_recipe_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    """An afternoon's settings, gone."""
    (tmp_path / "recipe.toml").write_text("seed = 7\n")
    refused = init(tmp_path)
    assert isinstance(refused.exception, RecipeError)
    assert "--force" in str(refused.exception)
    assert (tmp_path / "recipe.toml").read_text() == "seed = 7\n"
    assert init(tmp_path, "--force").exit_code == 0
    assert load_recipe(tmp_path / "recipe.toml").seed == 1


@pytest.mark.parametrize("interval", ["1m", "3m", "5m", "15m"])
def test_every_key_is_known_those_in_comments_too(interval: str) -> None:
    """A key to uncomment that the recipe then refuses."""
    text = recipe_text(("BTCUSDT",), interval, TODAY)
    wide = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M)
    assert wide.count("\n") == text.count("\n")
    assert wide != text
    for form in (text, wide):
        recipe = parse_recipe(tomllib.loads(form))
        assert recipe.strategy.hold_candles == recipe.label.horizon
        # A window that no MicroNet fits into is refused here.
        assert recipe.learn_settings().short_window == recipe.micro.short_window


@pytest.mark.parametrize(
    ("symbols", "interval"), [(("BTC/USDT",), "5m"), (("BTCUSDT",), "7m"), (("BTCUSDT",), "1h")]
)
def test_what_cannot_be_traded_is_refused_before_anything_is_written(
    tmp_path: Path, symbols: tuple[str, ...], interval: str
) -> None:
    """A recipe with a quote mark in a symbol, or candles too long for its windows."""
    done = init(tmp_path / "new", "--symbols", ",".join(symbols), "--interval", interval)
    assert isinstance(done.exception, RecipeError)
    assert not (tmp_path / "new").exists()


@given(st.dates(min_value=date(2019, 1, 1), max_value=date(2100, 12, 31)))
def test_span_is_six_whole_months_that_are_over(today: date) -> None:
    """A month that has not closed; training on candles that were not fetched."""
    first, end = traded_span(today)
    assert first.day == end.day == 1
    assert (end.year - first.year) * 12 + end.month - first.month == 6
    assert end <= today
    assert (first - fetch_from(today)).days > TRAIN_DAYS + VALIDATE_DAYS + 30
