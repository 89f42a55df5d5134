"""Embeddings as an asset: the file, the nearest days, their outcomes, and both commands."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from cppncripto_strategy import embeddings
from cppncripto_strategy.cli import cli
from cppncripto_strategy.errors import BundleError, CandleError, StoreError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS, ms_to_utc
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.locks import FileLock
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, build_sessions
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.batch import embed_sessions
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings

START_MS = 1_704_067_200_000  # 2024-01-01
DAYS = 140
WINDOW_DAYS = 5
SESSION = SessionSettings(interval_ms=HOUR_MS, long_window=24 * WINDOW_DAYS)
DOCUMENT = Path(__file__).parents[2] / "docs" / "embeddings.md"


def _candles(seed: int) -> Candles:
    return generate(PlantedSettings(DAYS, "1h", seed, start_ms=START_MS, sigma=0.004)).candles


LEARN = LearnSettings(
    session=SESSION,
    encoder_options={"stride": 4, "channels": 8, "dilations": [1]},
    pretrain=PretrainSettings(epochs=1),
    train=TrainSettings(epochs=1, initialisations=1),
    short_window=12,
    label=LabelSettings(horizon=6),
    train_days=60,
    validate_days=20,
)


@pytest.fixture(scope="module")
def series() -> dict[str, Candles]:
    return {"BTCUSDT": _candles(1), "ETHUSDT": _candles(2)}


@pytest.fixture(scope="module")
def bundle(series: dict[str, Candles]) -> Bundle:
    torch.set_num_threads(1)
    tables = [
        build_sessions(symbol, CandleGrid.from_candles(candles, HOUR_MS), SESSION)
        for symbol, candles in series.items()
    ]
    return learn_bundle(tables, int(tables[0].start_ms[85]), LEARN, seed=0)


@pytest.fixture(scope="module")
def whole(series: dict[str, Candles], bundle: Bundle) -> pa.Table:
    """Every day of both symbols, in-sample ones included."""
    timeline = BundleTimeline((bundle,), in_sample=True)
    return pa.concat_tables(
        [embeddings.embed_candles(name, held, timeline) for name, held in series.items()]
    )


@pytest.fixture(scope="module")
def folder(
    series: dict[str, Candles], bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A working folder: a candle store and a bundle."""
    root = tmp_path_factory.mktemp("asset")
    for name, held in series.items():
        CandleStore(root / "candles").write(name, "1h", held)
    bundle.save(root / "bundle")
    return root


def _run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(part) for part in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_bundles_that_read_a_market_embed_beside_it_and_not_without(
    series: dict[str, Candles], tmp_path: Path
) -> None:
    """An embedding of a market that was not there, or `cppn-bt embed` that does not fetch it."""
    session = replace(
        SESSION, names=(*SESSION.names, *MARKET_COLUMNS), market="BTCUSDT", terms=("weekday",)
    )
    own, market = series["ETHUSDT"], series["BTCUSDT"]
    grid = CandleGrid.from_candles(own, HOUR_MS).with_market(market)
    table = build_sessions("ETHUSDT", grid, session)
    learn = replace(LEARN, session=session)
    bundle = learn_bundle([table], int(table.start_ms[85]), learn, seed=0)
    timeline = BundleTimeline((bundle,))
    beside = embeddings.embed_candles("ETHUSDT", own, timeline, market)
    other = embeddings.embed_candles("ETHUSDT", own, timeline, _candles(7))
    assert len(beside) > 20
    assert embeddings.vectors_of(beside).shape == embeddings.vectors_of(other).shape
    assert (embeddings.vectors_of(beside) != embeddings.vectors_of(other)).any()
    with pytest.raises(CandleError, match=r"ETHUSDT cannot be scored by itself: .* BTCUSDT, and"):
        embeddings.embed_candles("ETHUSDT", own, timeline)
    CandleStore(tmp_path / "candles").write("ETHUSDT", "1h", own)
    CandleStore(tmp_path / "candles").write("BTCUSDT", "1h", market)
    loaded = Bundle.load(bundle.save(tmp_path / "bundle"))
    assert (loaded.info.session.market, loaded.info.session) == ("BTCUSDT", session)
    out, store = tmp_path / "e.parquet", tmp_path / "candles"
    code, _ = _run("embed", tmp_path / "bundle", "--candles", store, "--out", out)
    assert code == 0
    vectors = embeddings.vectors_of(embeddings.read_embeddings(out))
    np.testing.assert_array_equal(vectors, embeddings.vectors_of(beside))


def test_every_row_says_what_it_saw_and_when_it_holds(
    series: dict[str, Candles], bundle: Bundle, whole: pa.Table
) -> None:
    """Kills an embedding filed under the wrong midnight."""
    assert whole.schema == embeddings.SCHEMA
    rows = whole.to_pylist()
    last = START_MS + DAYS * DAY_MS
    assert {row["symbol"] for row in rows} == set(series)
    for row in rows:
        assert row["session_ms"] % DAY_MS == 0
        assert row["valid_from_ms"] == row["session_ms"] == row["data_end_ms"]
        assert row["data_end_ms"] - row["data_start_ms"] == WINDOW_DAYS * DAY_MS
        assert row["in_sample"] == (row["session_ms"] < bundle.info.trained_until_ms)
        assert row["model_hash"] == bundle.model_hash
        assert len(row["vector"]) == 128
    # The day that begins as the candles end can be embedded; the one after cannot.
    assert max(row["session_ms"] for row in rows) == last
    # The vector is the one that is traded on.
    table = build_sessions("ETHUSDT", CandleGrid.from_candles(series["ETHUSDT"], HOUR_MS), SESSION)
    states = embed_sessions(table, BundleTimeline((bundle,), in_sample=True))
    mine = embeddings.vectors_of(whole.filter(pa.compute.field("symbol") == "ETHUSDT"))
    np.testing.assert_array_equal(mine, states.embedding.astype(np.float64))


def test_later_candles_change_no_row(
    series: dict[str, Candles], bundle: Bundle, whole: pa.Table
) -> None:
    """Kills an asset that would have looked different had it been written on the day."""
    cut = START_MS + 100 * DAY_MS
    candles = series["BTCUSDT"].between(0, cut)
    early = embeddings.embed_candles("BTCUSDT", candles, BundleTimeline((bundle,), in_sample=True))
    same = whole.filter(
        (pa.compute.field("symbol") == "BTCUSDT") & (pa.compute.field("session_ms") <= cut)
    )
    assert len(early) == len(same) > 50
    np.testing.assert_allclose(
        embeddings.vectors_of(early), embeddings.vectors_of(same), rtol=1e-5, atol=1e-5
    )


def test_days_of_training_are_written_only_when_asked_for(
    series: dict[str, Candles], bundle: Bundle
) -> None:
    """Kills an in-sample embedding that passes for an honest one."""
    table = embeddings.embed_candles("BTCUSDT", series["BTCUSDT"], BundleTimeline((bundle,)))
    sessions = table["session_ms"].to_numpy()
    assert sessions[0] == bundle.info.trained_until_ms
    assert not any(table["in_sample"].to_pylist())


def test_a_failed_rollover_keeps_the_older_embedding_and_says_so(
    series: dict[str, Candles], bundle: Bundle, whole: pa.Table
) -> None:
    """Kills a stale vector that claims to be the day's own, or is found as a neighbour."""
    candles = series["BTCUSDT"]
    out = (candles.open_time >= START_MS + 110 * DAY_MS) & (
        candles.open_time < START_MS + 113 * DAY_MS
    )
    timeline = BundleTimeline((bundle,), in_sample=True)
    table = embeddings.embed_candles("BTCUSDT", candles[~out], timeline)
    stale = [r for r in table.to_pylist() if r["valid_from_ms"] != r["session_ms"]]
    assert stale
    for row in stale:
        assert row["valid_from_ms"] < row["session_ms"]
        assert row["data_end_ms"] == row["valid_from_ms"]
    near = embeddings.similar_days(table, "BTCUSDT", START_MS + 135 * DAY_MS, 1_000)
    assert not {day.session_ms for day in near} & {row["session_ms"] for row in stale}


def test_the_encoder_keeps_its_hash_when_only_micronet_changes(bundle: Bundle) -> None:
    """Kills comparisons between embeddings of two encoders, and their refusal within one."""
    other = replace(bundle, info=replace(bundle.info, seed=9))
    assert other.model_hash != bundle.model_hash
    assert embeddings.encoder_hash(other) == embeddings.encoder_hash(bundle)
    loaded = replace(bundle.info, session=replace(SESSION, scaler="minmax"))
    assert embeddings.encoder_hash(replace(bundle, info=loaded)) != embeddings.encoder_hash(bundle)
    with pytest.raises(BundleError, match="without macro"):
        embeddings.encoder_hash(replace(bundle, macro=None))


def test_similar_days_are_the_nearest_of_those_before_the_window(whole: pa.Table) -> None:
    """Kills neighbours from the future, from the day's own window, or of another encoder."""
    asked_ms = START_MS + 120 * DAY_MS
    foreign = whole.slice(0, 40).set_column(
        whole.schema.get_field_index("encoder_hash"),
        embeddings.SCHEMA.field("encoder_hash"),
        pa.array(["other"] * 40),
    )
    rows = {(r["symbol"], r["session_ms"]): np.array(r["vector"]) for r in whole.to_pylist()}
    query = rows["BTCUSDT", asked_ms]
    twins = pa.array([query] * 40, embeddings.SCHEMA.field("vector").type)
    vector = whole.schema.get_field_index("vector")
    foreign = foreign.set_column(vector, embeddings.SCHEMA.field("vector"), twins)
    table = pa.concat_tables([whole, foreign])
    for every, symbols in ((False, {"BTCUSDT"}), (True, {"BTCUSDT", "ETHUSDT"})):
        expected = sorted(
            (float(np.linalg.norm(vector - query)), name, day)
            for (name, day), vector in rows.items()
            if name in symbols and day <= asked_ms - WINDOW_DAYS * DAY_MS
        )[:8]
        found = embeddings.similar_days(table, "BTCUSDT", asked_ms, 8, every_symbol=every)
        assert [(day.symbol, day.session_ms) for day in found] == [e[1:] for e in expected]
        np.testing.assert_allclose([day.distance for day in found], [e[0] for e in expected])


def test_what_is_not_there_is_named(whole: pa.Table) -> None:
    """Kills an answer about the wrong day, and an error that leaves the reader guessing."""
    with pytest.raises(StoreError, match="BTCUSDT, ETHUSDT"):
        embeddings.similar_days(whole, "XRPUSDT", START_MS, 3)
    with pytest.raises(StoreError, match=r"2030-01-01: the file holds .* days from 2024"):
        embeddings.similar_days(whole, "BTCUSDT", 1_893_456_000_000, 3)
    twice = pa.concat_tables([whole, whole])
    with pytest.raises(StoreError, match="2 embeddings"):
        embeddings.similar_days(twice, "BTCUSDT", START_MS + 120 * DAY_MS, 3)


def test_outcomes_are_the_days_own_return_and_volatility(series: dict[str, Candles]) -> None:
    """Kills a day shifted by one candle, and a return taken across an outage."""
    candles = series["BTCUSDT"]
    day = START_MS + 50 * DAY_MS
    row = 50 * 24
    expected = candles.close[row + 23] / candles.close[row - 1] - 1
    returns = np.diff(np.log(candles.close[row - 1 : row + 24]))
    [found] = embeddings.outcomes(candles, HOUR_MS, [day])
    assert found.simple_return == pytest.approx(expected)
    assert found.realised_volatility == pytest.approx(math.sqrt((returns**2).sum()))
    keep = np.ones(len(candles), dtype=bool)
    keep[row + 4 : row + 6] = False
    [holed] = embeddings.outcomes(candles[keep], HOUR_MS, [day])
    spared = np.delete(returns, [4, 5, 6])  # two missing candles make three unknown returns
    assert holed.realised_volatility == pytest.approx(math.sqrt((spared**2).sum()))
    assert holed.simple_return == pytest.approx(expected)
    nothing = embeddings.outcomes(candles, HOUR_MS, [START_MS + DAYS * DAY_MS])
    assert math.isnan(nothing[0].simple_return)


@pytest.mark.parametrize(
    ("interval_ms", "text"), [(60_000, "1m"), (300_000, "5m"), (HOUR_MS, "1h"), (DAY_MS, "1d")]
)
def test_intervals_are_named_as_the_exchange_names_them(interval_ms: int, text: str) -> None:
    """Kills a bundle of 60-minute candles that looks for '60m' files."""
    assert embeddings.interval_text(interval_ms) == text


def test_a_file_comes_back_as_it_was_written(whole: pa.Table, tmp_path: Path) -> None:
    """Kills columns lost on the way, and a foreign file taken for embeddings."""
    path = tmp_path / "deep" / "e.parquet"
    embeddings.write_embeddings(whole.take(np.arange(len(whole))[::-1]), path)
    assert embeddings.read_embeddings(path).equals(whole)
    first = path.read_bytes()
    embeddings.write_embeddings(whole, path)
    assert path.read_bytes() == first
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"symbol": ["A"]}), other)
    with pytest.raises(StoreError, match="lacks the columns"):
        embeddings.read_embeddings(other)
    with pytest.raises(StoreError, match=r"No such file.*cppn-bt embed"):
        embeddings.read_embeddings(tmp_path / "absent.parquet")


def test_both_commands_on_a_bundle_and_a_store(
    folder: Path, whole: pa.Table, series: dict[str, Candles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a command that drifts from the library under it."""
    monkeypatch.chdir(folder)
    status, out = _run("embed", "bundle", "--in-sample", "--card", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["rows"] == len(whole)
    assert document["days"] == {"BTCUSDT": len(whole) // 2, "ETHUSDT": len(whole) // 2}
    assert document["card"]["in_sample"]
    assert json.loads((folder / "embeddings.parquet.card.json").read_text()) == document["card"]
    assert embeddings.read_embeddings(folder / "embeddings.parquet").equals(whole)

    asked = START_MS + 120 * DAY_MS
    status, out = _run(
        "days", "BTCUSDT", ms_to_utc(asked)[:10], "--interval", "1h", "--count", 4, "--json"
    )
    assert status == 0
    days = json.loads(out)["days"]
    expected = embeddings.similar_days(whole, "BTCUSDT", asked, 4)
    assert [day["session_ms"] for day in days] == [day.session_ms for day in expected]
    followed = embeddings.outcomes(series["BTCUSDT"], HOUR_MS, [d.session_ms for d in expected])
    assert [day["return"] for day in days] == [one.simple_return for one in followed]

    status, text = _run("days", "BTCUSDT", ms_to_utc(asked)[:10], "--interval", "1h")
    assert status == 0
    assert ms_to_utc(expected[0].session_ms)[:10] in text
    assert "rose; mean return" in text


def test_the_card_is_printed_with_its_rivals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills a card that shows the embedding without what it has to beat."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")
    status, text = _run(
        "embed", "bundle", "--symbols", "ETHUSDT", "--out", "eth.parquet", "--in-sample", "--card"
    )
    assert status == 0
    for word in ("ETHUSDT", "har rv", "hand made", "random encoder", "in-sample", "effective rank"):
        assert word in text
    assert set(pq.read_table("eth.parquet")["symbol"].to_pylist()) == {"ETHUSDT"}


def test_commands_refuse_what_they_cannot_answer(
    folder: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills an empty file written in silence, a time within a day, and a card over two bundles."""
    monkeypatch.chdir(folder)
    late = replace(bundle, info=replace(bundle.info, trained_until_ms=START_MS + 900 * DAY_MS))
    late.save(tmp_path / "late")
    status, _ = _run("embed", tmp_path / "late", "--out", tmp_path / "none.parquet")
    assert status != 0
    assert not (tmp_path / "none.parquet").exists()
    bundle.save(tmp_path / "both" / "one")
    late.save(tmp_path / "both" / "two")
    assert _run("embed", tmp_path / "both", "--card")[0] == 2
    assert _run("days", "BTCUSDT", "2024-03-14 10:00")[0] == 2


def test_the_documented_query_finds_the_same_days(
    whole: pa.Table, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills documentation that no longer runs."""
    duckdb = pytest.importorskip("duckdb", reason="the query runs in DuckDB, an extra")
    monkeypatch.chdir(folder)
    embeddings.write_embeddings(whole, folder / "embeddings.parquet")
    [query] = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    asked = START_MS + 73 * DAY_MS
    assert ms_to_utc(asked)[:10] == "2024-03-14"
    rows = duckdb.sql(query.replace("interval=5m", "interval=1h")).fetchall()
    expected = embeddings.similar_days(whole, "BTCUSDT", asked, 10)
    assert [row[0] for row in rows] == [ms_to_utc(day.session_ms)[:10] for day in expected]
    np.testing.assert_allclose([row[1] for row in rows], [d.distance for d in expected], rtol=1e-4)
    held = CandleStore(folder / "candles").read("BTCUSDT", "1h")
    followed = embeddings.outcomes(held, HOUR_MS, [day.session_ms for day in expected])
    np.testing.assert_allclose([row[2] for row in rows], [f.simple_return for f in followed])
    np.testing.assert_allclose([row[3] for row in rows], [f.realised_volatility for f in followed])


def test_file_that_another_one_is_writing_is_left_alone(tmp_path: Path) -> None:
    """Kills embeddings of one bundle beside the quality card of another."""
    out = tmp_path / "mine.parquet"
    (tmp_path / "bundle").mkdir()
    with (
        FileLock.take(tmp_path / ".mine.parquet.lock", "it", StoreError, ""),
        pytest.raises(StoreError, match=r"mine\.parquet is in use by this process.*another --out"),
    ):
        _run("embed", tmp_path / "bundle", "--out", out)
    assert not out.exists()
