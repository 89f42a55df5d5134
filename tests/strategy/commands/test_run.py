"""`cppn-bt run`, end to end on a small planted market: what it writes and prints, and twice."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.backtest import run_backtest
from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.recipe import load_recipe
from cppncripto_strategy.results import TABLES, read_results

pytestmark = pytest.mark.slow

QUARTER_MS = 900_000
SYMBOLS = ["ONE", "TWO"]
FILES = {
    "recipe.toml",
    "manifest.json",
    "metrics.json",
    "log.jsonl",
    "report.html",
    "tearsheet.html",
    "picture.png",
    "bundles",
    *(f"{name}.parquet" for name in TABLES),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_toml):
    """A run of the command with --json in a process of its own."""
    place = tmp_path_factory.mktemp("run")
    (place / "tiny.toml").write_text(tiny_toml)
    done = subprocess.run(
        [sys.executable, "-m", "cppncripto_strategy.cli", "run", "tiny.toml", "--json"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (
        path for path in (place / "tiny").iterdir() if path.name != "bundles" and path.is_dir()
    )
    return place, folder, done


def test_run_leaves_the_networks_of_each_arm_where_readers_find_them(finished, result):
    """Two arms in one folder, which nothing that reads bundles would take."""
    folder, hashes = finished[1], result.manifest["bundle_hashes"]
    for path, arm in (
        (folder, "with macro"),
        (folder / "bundles", "with macro"),
        (folder / "bundles" / "with-macro", "with macro"),
        (folder / "bundles" / "without-macro", "without macro"),
        (folder.parent, "with macro"),  # of one run: its home's cache is not mixed yet
    ):
        loaded = BundleTimeline.load(path)
        assert [bundle.model_hash for bundle in loaded.bundles] == hashes[arm]
        assert (loaded.bundles[0].macro is not None) == (arm == "with macro")


@pytest.fixture(scope="module")
def result(finished):
    return read_results(finished[1])


def test_json_is_one_document_and_nothing_else(finished):
    """A progress line or a warning in the middle of a pipe."""
    _, folder, done = finished
    document = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert document["folder"] == str(folder.relative_to(folder.parents[1]))
    written = json.loads((folder / "metrics.json").read_text())
    assert {key: document[key] for key in written} == written
    assert "ceiling" in json.dumps(document["planted"])


def test_no_warning_reaches_the_terminal(finished):
    """A library's deprecation notice among the results."""
    text = finished[2].stderr.lower()
    for word in ("warning", "traceback", "deprecat", "error"):
        assert word not in text


def test_every_file_of_the_results_folder_is_there(finished):
    """A table or page that is promised and not written; a temporary file left behind."""
    _, folder, _ = finished
    assert {path.name for path in folder.iterdir()} == FILES
    for name in ("report.html", "tearsheet.html"):
        page = (folder / name).read_text()
        assert len(page) > 10_000
        assert "<script src=" not in page
        assert '<link rel="stylesheet" href="http' not in page
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"time", "level", "logger", "message"} == set(lines[0])
    assert "run finished" in lines[-1]["message"]
    assert len((folder.parent / "trials.jsonl").read_text().splitlines()) == 1


def test_signals_hold_every_candle_of_the_span_and_symbol(result):
    """Bars lost between feed, strategy and table; scores missing in the first days."""
    signals = result.signals
    assert list(signals.columns) == list(TABLES["signals"])
    stamps = signals["close_time_ms"].to_numpy()
    start = int(stamps.min())
    assert start % DAY_MS == 0
    for symbol in SYMBOLS:
        rows = signals[signals["symbol"] == symbol]
        expected = np.arange(start, int(stamps.max()) + 1, QUARTER_MS)
        np.testing.assert_array_equal(rows["close_time_ms"], expected)
        assert rows["score"].notna().all()
        assert (rows["age_ms"] == rows["close_time_ms"] % DAY_MS).all()
        assert set(rows["signal"]) <= {-1, 0, 1}
        signalled = rows[rows["signal"] != 0]
        assert len(signalled) > 10
        above = signalled["score"] >= signalled["upper"]
        below = signalled["score"] <= signalled["lower"]
        np.testing.assert_array_equal(signalled["signal"], above.astype(int) - below.astype(int))
    assert start == min(bundle["valid_from_ms"] for bundle in result.bundles)


def test_bundles_change_on_their_calendar_and_never_score_their_past(finished, result):
    """A run on one bundle for ever; a bundle in force before it was trained."""
    assert len(result.bundles) >= 3
    for bundle in result.bundles:
        assert bundle["trained_until_ms"] <= bundle["valid_from_ms"] < bundle["valid_until_ms"]
    cached = sorted((finished[1].parent / "bundles").glob("*-macro/*"))
    assert len(cached) == 2 * len(result.bundles)  # with and without macro
    hashes = result.manifest["bundle_hashes"]
    assert list(hashes) == ["with macro", "without macro"]
    assert [bundle["hash"] for bundle in result.bundles] == hashes["with macro"]
    first = BundleTimeline.load(cached[0])
    with pytest.raises(BundleError, match="in-sample"):
        first.require_out_of_sample(result.bundles[0]["trained_until_ms"] - DAY_MS)


def test_embeddings_hold_one_row_a_symbol_and_day(result):
    """Days without an embedding, or one that saw its own day."""
    table = result.embeddings
    assert len(table) == len(table.drop_duplicates(["symbol", "valid_from_ms"]))
    assert (table["valid_from_ms"] % DAY_MS == 0).all()
    assert (table["data_end_ms"] <= table["valid_from_ms"]).all()
    days = result.signals["close_time_ms"].max() // DAY_MS - table["valid_from_ms"].min() // DAY_MS
    assert len(table) == len(SYMBOLS) * (days + 1)
    vector = table[[f"e{i}" for i in range(128)]]
    assert np.isfinite(vector.to_numpy()).all()
    assert vector.std().min() > 0


def test_fills_come_at_the_open_after_the_decision(result):
    """A fill at the close that was decided on, or before it."""
    fills = result.fills[result.fills["status"] == "filled"]
    assert len(fills) > 10
    assert (fills["executed_ms"] == fills["created_ms"] + QUARTER_MS).all()
    side = np.where(fills["side"] == "buy", 1.0, -1.0)
    slip = (fills["price"] / fills["reference_price"] - 1) * side
    assert (slip > -1e-9).all()
    assert slip.max() < 1.2e-4
    np.testing.assert_allclose(fills["fee"], fills["notional"] * 10e-4, rtol=1e-6)


def test_equity_begins_with_the_cash_and_the_last_value_is_in_the_metrics(result):
    """Trades before the span that the tables do not show."""
    assert result.equity["equity"].iloc[0] == pytest.approx(10_000.0)
    growth = result.equity["equity"].iloc[-1] / 10_000.0 - 1
    assert result.metrics["strategy"]["total_return"] == pytest.approx(growth, abs=1e-9)
    assert len(result.equity) == result.signals["close_time_ms"].nunique()


def test_the_same_seed_gives_the_same_tables_byte_for_byte(finished, tmp_path):
    """Results nobody can reproduce: threads, hashes, or the cache in the numbers."""
    place, folder, _ = finished
    recipe = load_recipe(place / "tiny.toml")
    run_backtest(recipe, tmp_path / "again", cache=None)
    for name in TABLES:
        mine, theirs = (path / f"{name}.parquet" for path in (folder, tmp_path / "again"))
        assert mine.read_bytes() == theirs.read_bytes(), name
    again = read_results(tmp_path / "again")
    assert again.manifest["bundle_hashes"] == read_results(folder).manifest["bundle_hashes"]


def test_resolved_recipe_among_the_results_runs_again(finished, tmp_path):
    """A recipe.toml that cannot be read back, or means other settings."""
    place, folder, _ = finished
    assert load_recipe(folder / "recipe.toml") == load_recipe(place / "tiny.toml")


def test_human_run_prints_a_summary_and_where_to_look(finished):
    """A summary without its paths; an option that changes nothing; a run that is not counted."""
    place, folder, _ = finished
    done = subprocess.run(
        [sys.executable, "-m", "cppncripto_strategy.cli", "run", "tiny.toml", "--symbols", "one"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    new = next(
        path
        for path in folder.parent.iterdir()
        if path.is_dir() and path not in (folder, folder.parent / "bundles")
    )
    for name in ("report.html", "tearsheet.html", "metrics.json"):
        assert f"tiny/{new.name}/{name}" in done.stdout
    for word in ("planted", "ceiling", "macro"):
        assert word in done.stdout.lower()
    assert "\nLook at\n" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("  cppn-bt check tiny.toml ")
    assert set(pd.read_parquet(new / "signals.parquet")["symbol"]) == {"ONE"}
    assert json.loads((new / "manifest.json").read_text())["trials"] == 2


def test_result_keeps_every_field(result):
    """A field that is written but not read back."""
    assert all(getattr(result, field.name) is not None for field in dataclasses.fields(result))
