"""Every file we read back, flipped, cut, stuffed and retyped: only our own errors come out.

And a sealed file (a bundle, a checkpoint, a session's facts) that was changed is never taken for
whole.
"""

import json
import os
import shutil
from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cppncripto_strategy import embeddings, results
from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.evaluation.trials import Trial, TrialLedger, discounted_sharpe
from cppncripto_strategy.feeds.binance.filters import symbol_info
from cppncripto_strategy.feeds.clock import Span, utc_to_ms
from cppncripto_strategy.feeds.filters import PLANTED_FILTERS
from cppncripto_strategy.feeds.history.ledger import STATUSES, Ledger, write_recorded
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.history.stored_filters import (
    recorded_filters,
    store_filters,
    stored_filters,
)
from cppncripto_strategy.feeds.history.verify import verify_series
from cppncripto_strategy.feeds.live.journal import line_of
from cppncripto_strategy.feeds.live.rounds import Round, candles_of
from cppncripto_strategy.foreign import sealed
from cppncripto_strategy.models.bundle import INFO_FILE, WEIGHTS_FILE, Bundle
from cppncripto_strategy.models.hyperneat.champion import read_champion
from cppncripto_strategy.models.hyperneat.evolution import Evolution, load_run
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, NeatSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.models.inputs.sessions import build_sessions
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.session import SessionFacts, SessionFolder
from cppncripto_strategy.recipe import load_recipe

# Per file; all of them together take some thirty seconds. A long run asks for more.
EXAMPLES = int(os.environ.get("CPPN_BT_FUZZ_EXAMPLES", "60"))
SEARCH = EvolutionSettings(generations=2, search="neat", seed=5, neat=NeatSettings(population=4))
SUBSTRATE = Substrate.temporal(
    n_features=4, width=6, channels=5, taps=3, dilations=(1, 2), stride=12
)
MOST_NUMBERS = 40  # of one file: a checkpoint holds thousands
HOUR_MS = 3_600_000
ROW = (1.0, 2.0, 0.5, 1.5, 9.0, 9.0, 3, 4.0, 4.0)
STORED = candles_of((utc_to_ms("2024-01-01") + HOUR_MS * n, *ROW) for n in range(48))
SERIES = "store/symbol=XUSDT/interval=1h"


def timeline_rows(session):
    """Which bundle is active from when."""
    timeline = SessionTimeline.of_session(session)
    return [bundle.model_hash for bundle in timeline.bundles], timeline.valid_from_ms


def recorded(session):
    """A session as its readers use it."""
    recording = Recording.read(session)
    return recording.candles(), recording.gaps(), recording.tables(), recording.missed()


def resumed(session):
    """A session as a restart opens it."""
    with SessionFolder(session) as folder:
        return folder.resume_at(), folder.past, folder.unopened


def coverage(series):
    """What a series' ledger answers to those who ask it."""
    ledger = Ledger.load(CandleStore(series.parents[1]), "XUSDT", "1h")
    year = Span(0, 2**45)
    open_spans = [ledger.open_spans(month, year) for month in ledger.months]
    return ledger.entries(), [ledger.spans(status) for status in STATUSES], open_spans


def month(series):
    """The candles of a store, and whether they are found to be as they were recorded."""
    store = CandleStore(series.parents[1])
    check = verify_series(store, "XUSDT", "1h")
    candles = store.read("XUSDT", "1h")
    assert not check.ok or candles.equals(STORED)
    return candles


# What each reader takes, and whether a changed file must be refused or read as it was.
READERS = {
    "recipe.toml": lambda path: load_recipe(path),
    f"bundle/{INFO_FILE}": lambda path: Bundle.load(path.parent).to_bytes(),
    f"bundle/{WEIGHTS_FILE}": lambda path: Bundle.load(path.parent).to_bytes(),
    "checkpoint.json": lambda path: load_run(path, SEARCH, SUBSTRATE, "data").to_json(),
    "champion.json": lambda path: read_champion(path),
    "session/session.json": lambda path: Recording.read(path.parent).facts,
    "session/rounds.jsonl": lambda path: (recorded(path.parent), resumed(path.parent)),
    "session/opened.jsonl": lambda path: (recorded(path.parent), resumed(path.parent)),
    "session/decisions.jsonl": lambda path: recorded(path.parent),
    "session/fills.jsonl": lambda path: recorded(path.parent),
    "session/equity.jsonl": lambda path: recorded(path.parent),
    "session/events.jsonl": lambda path: resumed(path.parent),
    "session/bundles/timeline.json": lambda path: timeline_rows(path.parents[1]),
    "trials.jsonl": lambda path: discounted_sharpe([0.1, -0.2, 0.3], TrialLedger(path.parent)),
    "run/manifest.json": lambda path: results.read_results(path.parent).uses_macro,
    "run/metrics.json": lambda path: results.read_results(path.parent),
    "run/recipe.toml": lambda path: results.read_results(path.parent),
    "run/equity.parquet": lambda path: results.read_results(path.parent),
    f"{SERIES}/_ledger.json": lambda path: coverage(path.parent),
    f"{SERIES}/2024-01.parquet": lambda path: month(path.parent),
    "store/symbol=XUSDT/_filters.json": lambda path: stored_filters(path.parents[1], "XUSDT"),
    "exchangeInfo.json": lambda path: recorded_filters(path),
    "embeddings.parquet": lambda path: embeddings.read_embeddings(path).to_pylist(),
}
SEALED = {
    f"bundle/{INFO_FILE}",
    f"bundle/{WEIGHTS_FILE}",
    "checkpoint.json",
    "session/session.json",
    "session/bundles/timeline.json",
}


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """A folder with one sound file of each kind."""
    base = tmp_path_factory.mktemp("whole")
    grid = toy.grid(toy.candles())
    [bundle] = toy.timeline(grid, toy.settings).bundles
    bundle.save(base / "bundle")
    run = Evolution.begin(SEARCH, SUBSTRATE, "data")
    results.write_json(base / "checkpoint.json", sealed(results.to_plain(run.to_json())))
    results.write_json(base / "champion.json", {"genome": random_genome(1).to_json()})
    facts = SessionFacts(("X",), "1h", 0, 0, {"cash": 1.0, "fee_bps": 10.0, "slippage_bps": 1.0})
    with SessionFolder.create(base / "session", facts) as folder:
        shown = [Round(HOUR_MS * n, {"X": (HOUR_MS * (n - 1), *ROW)}) for n in (1, 2, 3)]
        shown.append(Round(HOUR_MS * 4, {}, gaps=("X",)))
        folder.journal(shown)
        for moment in shown:
            folder.opened(moment, frozenset({"X"}))
            for name, record in derived_records(moment.close_ms).items():
                folder.derived[name].add(record)
            folder.event("day", close_ms=moment.close_ms)
        folder.settle()
    until = (bundle.info.trained_until_ms,)
    SessionTimeline((bundle,), False, until).save(base / "session")
    ledger = TrialLedger(base)
    for number in (1, 2):
        ledger.append(Trial(f"f{number}", "run", "x", 1, 0.5, 10))
    tables = {name: results.empty_table(name) for name in results.TABLES}
    recipe = {"name": "x", "micro": {"short_window": 24}}
    (base / "recipe.toml").write_text(results.to_toml(recipe))
    results.write_results(results.RunResult(recipe, {"seed": 1}, {"a": 1}, **tables), base / "run")
    store = CandleStore(base / "store")
    write_recorded(store, "XUSDT", "1h", STORED[:24], "rest")
    write_recorded(store, "XUSDT", "1h", STORED[30:], "import:x.csv", unchecked=STORED.open_time)
    write_recorded(store, "XUSDT", "1h", STORED[24:30], "rest")
    entry = symbol_info("XUSDT", PLANTED_FILTERS.filters)
    store_filters(store.root, "XUSDT", entry, 1_700_000_000_000)
    results.write_json(base / "exchangeInfo.json", {"symbols": [entry]})
    table = embeddings.embed_table(
        build_sessions("X", grid, toy.settings), toy.timeline(grid, toy.settings)
    )
    embeddings.write_embeddings(table, base / "embeddings.parquet")
    kept = {name: read(base / name) for name, read in READERS.items() if name in SEALED}
    return SimpleNamespace(base=base, kept=kept)


def derived_records(close_ms):
    """A record of each journal that can be computed again."""
    signal = dict.fromkeys(results.SIGNAL_COLUMNS, 0.5)
    fill = dict.fromkeys(results.FILL_COLUMNS, 1.0)
    texts = {"side": "buy", "reason": "can_trade", "status": "refused", "detail": ""}
    stamps = {"created_ms": close_ms, "executed_ms": close_ms}
    return {
        "decisions": {**signal, "symbol": "X", "close_time_ms": close_ms, "signal": 1},
        "fills": {**fill, **texts, **stamps, "symbol": "X"},
        "equity": {"t": close_ms, "equity": 1.0, "cash": 1.0},
    }


STRANGE = (None, True, -1, 1.5, float("nan"), 10**400, "x", "", [], {}, [[1]], {"a": None})


@st.composite
def spoilt(draw, content: bytes, lines: bool):
    """The content with something wrong, or merely odd, in it."""
    kind = draw(st.sampled_from(["flip", "cut", "stuff", "retype", "retype", "nothing but"]))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    if kind == "flip":
        changed = bytearray(content)
        changed[at] ^= draw(st.integers(1, 255))
        return bytes(changed)
    if kind == "cut":
        return content[:at]
    if kind == "stuff":
        return content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]
    if kind == "retype":
        return draw(retyped_line(content) if lines else retyped(content))
    return draw(st.sampled_from([b"", b"\0" * 9, b"[" * 99_999, b"\xff\xfe{\0", b"PK\3\4", b"{}"]))


@st.composite
def retyped(draw, content: bytes):
    """JSON with another value somewhere; of what is no JSON one word is another."""
    try:
        document = json.loads(content)
    except ValueError:
        words = content.split(b" ")
        words[draw(st.integers(0, len(words) - 1))] = b"-99999999999999999999"
        return b" ".join(words)
    places = list(slots(document))
    holder, key = places[draw(st.integers(0, len(places) - 1))]
    holder[key] = draw(st.sampled_from(STRANGE))
    return json.dumps(document).encode()


@st.composite
def retyped_line(draw, content: bytes):
    """A journal whose records, one of them changed, have the checksums of what they say now."""
    lines = content.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    check, _, text = lines[number].partition(b" ")
    journal = len(check) == 8 and not check.startswith(b"{")
    changed = draw(retyped(text if journal else lines[number]))
    lines[number] = line_of(json.loads(changed)).rstrip() if journal else changed
    return b"".join(line + b"\n" for line in lines)


def slots(value):
    """(container, key) of every value inside a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from slots(inner)


@pytest.mark.parametrize("name", READERS)
def test_only_our_errors_come_out_of_a_spoilt_file(whole, tmp_path_factory, name):
    """A traceback out of a damaged file; a bundle that was changed and trades."""
    base = tmp_path_factory.mktemp("spoilt") / "all"
    shutil.copytree(whole.base, base)
    path, read = base / name, READERS[name]
    content = path.read_bytes()

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(spoilt(content, name.endswith(".jsonl")))
    def spoil(changed):
        path.write_bytes(changed)
        try:
            found = read(path)
        except CppnError:
            return
        assert name not in SEALED or found == whole.kept[name]

    spoil()
    for make in (list, path.mkdir):
        path.unlink(missing_ok=True)
        make()  # nothing, or a folder of this name
        with suppress(CppnError):  # some may be absent: a ledger without a trial yet
            read(path)


def test_sound_files_are_read(whole):
    """A fuzz test that never reaches the readers because its files are wrong to begin with."""
    for name, read in READERS.items():
        assert read(whole.base / name) is not None


@pytest.mark.parametrize("name", sorted(name for name in SEALED if name.endswith(".json")))
def test_no_number_of_a_sealed_file_can_be_changed(whole, tmp_path, name):
    """A start, a fee or a date moved by hand in a file whose hash nobody compares."""
    shutil.copytree(whole.base, tmp_path / "all")
    path = tmp_path / "all" / name
    content = path.read_text()
    places = range(len(list(slots(json.loads(content)))))
    numbers = 0
    for place in places:
        document = json.loads(content)
        holder, key = list(slots(document))[place]
        if type(holder[key]) not in (int, float) or key == "format" or numbers == MOST_NUMBERS:
            continue
        numbers += 1
        holder[key] += 1
        path.write_text(json.dumps(document))
        with pytest.raises(CppnError, match="changed after it was written"):
            READERS[name](path)
    assert numbers > 0
