"""`cppn-bt crosscheck`: a recipe, a finished run, and a copy of it with one fill moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from cppncripto_strategy.cli import cli
from cppncripto_strategy.crosscheck import portfolio
from cppncripto_strategy.feeds.clock import HOUR_MS, ms_to_utc

TINY = """
interval = "1h"
seed = 1
symbols = ["ONE", "TWO"]
[candles]
source = "planted"
[candles.planted]
days = 100
sigma = 0.004
[macro]
long_window = 288
encoder_options = {channels = 4, stride = 4, dilations = [1, 2]}
epochs = 1
[micro]
short_window = 8
channels = 4
hidden = 4
components = 2
initialisations = 1
epochs = 1
[label]
horizon = 4
[walkforward]
train_days = 20
validate_days = 20
retrain_days = 28
[threshold]
window = 100
[strategy]
hold_candles = 4
stop_pct = 1.0
cooldown_candles = 2
"""


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["crosscheck", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The recipe run and checked by one command: its folder and what the command said."""
    recipe = tmp_path_factory.mktemp("crosscheck") / "tiny.toml"
    recipe.write_text(TINY)
    done = invoke(recipe, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    return Path(document["folder"]), document


def test_recipe_is_run_and_every_account_agrees(checked: tuple[Path, dict[str, Any]]) -> None:
    """An account that nobody checked: the one without the embedding, or under the other rule."""
    folder, document = checked
    assert document["same"] is True
    names = [account["account"] for account in document["accounts"]]
    assert names == ["with macro", "without macro", "waiting for evidence"]
    for account in document["accounts"][:2]:
        assert account["compared"]["orders"] > 20
        assert account["sides"]["trades"][0] == account["sides"]["trades"][1] > 5
    page = (folder / portfolio.PAGE).read_text("utf-8")
    assert "Two engines agree, on every order and to the cent" in page
    assert "Profit Factor" in page  # one of vectorbt's own statistics
    assert 'src="http' not in page


def test_moved_fill_in_a_copy_is_named(
    checked: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Results that were edited, or a broker that fills a candle late."""
    copy = tmp_path / "copy"
    shutil.copytree(checked[0], copy)
    fills = pd.read_parquet(copy / "fills.parquet")
    label = fills.index[fills["status"] == "filled"][4]
    true_ms = int(fills.loc[label, "executed_ms"])
    fills.loc[label, "executed_ms"] = true_ms + HOUR_MS
    fills.to_parquet(copy / "fills.parquet", index=False)
    done = invoke(copy)
    assert done.exit_code == 1, done.output
    words = " ".join(done.output.split())
    times = f"recorded {ms_to_utc(true_ms + HOUR_MS)}, rebuilt {ms_to_utc(true_ms)}"
    assert f"{fills.loc[label, 'symbol']} {fills.loc[label, 'side']} decided" in words
    assert times in words


def test_run_without_the_networks_of_an_account_says_so(
    checked: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A traceback, or an account silently left out."""
    copy = tmp_path / "copy"
    shutil.copytree(checked[0], copy)
    shutil.rmtree(copy / "bundles" / "without-macro")
    done = invoke(copy)
    assert done.exit_code == 1
    assert "cannot be checked without its networks" in str(done.exception)


def test_missing_extra_is_named_before_anything_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of training, and then an ImportError."""
    monkeypatch.setattr(portfolio, "find_spec", lambda _name: None)
    done = invoke("demo")
    assert done.exit_code == 1
    assert "pip install 'cppncripto-strategy[vectorbt]'" in str(done.exception)
