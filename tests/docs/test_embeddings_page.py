"""docs/embeddings.md: its recipes are recipes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from cppncripto_strategy.recipe import parse_recipe

PAGE = Path(__file__).parents[2] / "docs" / "embeddings.md"


def test_the_printed_recipe_is_one_and_says_what_the_page_says() -> None:
    """A key that was renamed, or an embedding that does not hold what the page promises."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
    session = parse_recipe(tomllib.loads(text)).learn_settings().session
    assert session.terms == (
        *("weekday", "har", "market_har", "yesterday"),
        *("hours", "market_hours"),
    )
    assert session.long_window // session.pool == 720
    assert session.market == "BTCUSDT"
