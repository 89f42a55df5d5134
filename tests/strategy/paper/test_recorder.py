"""A strategy that is cut off anywhere and continues elsewhere decides what it would have."""

from __future__ import annotations

import ast
import inspect
import random
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cppncripto_strategy.evaluation.evidence import Bet
from cppncripto_strategy.evaluation.shadow import ShadowSignals
from cppncripto_strategy.evidence_meter import EvidenceMeter
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.feeds.live.rounds import RecordedRounds, Round, rows_of
from cppncripto_strategy.indicators.threshold import AdaptiveThreshold
from cppncripto_strategy.ledger import AccountCheck
from cppncripto_strategy.models.scoring.macro_stream import MacroStream
from cppncripto_strategy.models.scoring.micro_stream import MicroStream
from cppncripto_strategy.models.scoring.ring import Ring
from cppncripto_strategy.models.scoring.round_scorer import RoundScorer, ScoreStream
from cppncripto_strategy.models.scoring.threshold import ScoreThreshold
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.packing import pack, unpack
from cppncripto_strategy.paper.recorder import PaperStrategy, Recorder, rounds_of_bars
from cppncripto_strategy.paper.session import DERIVED, Collected
from cppncripto_strategy.paper.trader import paper_cerebro
from cppncripto_strategy.sizing import FixedFraction, VolatilityTarget
from cppncripto_strategy.strategy import MacroMicroStrategy, SymbolState

SYMBOLS = ("X", "Y", "Z")
DAYS, COUNT = 26, 26 * 24
BROKER = {"cash": 10_000.0, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False}
Shown = list[tuple[Round, frozenset[str]]]


def shown_rounds(toy: Any, seed: int) -> Shown:
    """Rounds of three symbols with gaps, candles that come late, and rounds nobody may trade on."""
    rng = random.Random(seed)
    rows = {s: rows_of(toy.candles(days=DAYS, seed=n)) for n, s in enumerate(SYMBOLS)}
    late = {symbol: range(0) for symbol in SYMBOLS}
    late["Y"] = range(430, 430 + rng.randrange(1, 9))
    absent = {(s, n) for s in SYMBOLS for n in range(COUNT) if rng.random() < 0.02}
    absent |= {("Z", n) for n in range(rng.randrange(30, 340))}  # listed later than the others
    shown: Shown = []
    for n in range(COUNT):
        close_ms = int(rows["X"][n][0]) + HOUR_MS
        here = [s for s in SYMBOLS if (s, n) not in absent]
        if n == late["Y"].stop:
            for back in late["Y"]:
                if ("Y", back) not in absent:
                    row = rows["Y"][back]
                    behind = Round(int(row[0]) + HOUR_MS, {"Y": row}, catch_up=True)
                    shown.append((behind, frozenset()))
        present = {s: rows[s][n] for s in here if n not in late[s]}
        if present:
            allowed = frozenset(present if n > 330 and rng.random() < 0.9 else ())
            shown.append((Round(close_ms, present), allowed))
    return shown


def play(shown: Shown, options: dict[str, Any], resume: dict[str, Any] | None = None) -> Any:
    """Derived records, and a snapshot after every round (after `resume`: after the last)."""
    before = [] if resume is None else rounds_of_bars(resume["bars"])
    source = RecordedRounds([*((one, frozenset()) for one in before), *shown])
    derived = {name: Collected() for name in DERIVED}
    counts: list[dict[str, int]] = []
    snapshots: list[bytes] = []
    lines: list[str] = []

    def keep(strategy: PaperStrategy) -> None:
        macros = [state.score.macro for state in strategy.states if len(state.data)]
        lines.append(repr([[float(line[0]) for line in macro.lines] for macro in macros]))
        counts.append({name: len(sink.records) for name, sink in derived.items()})
        if resume is None or source.finished:
            snapshots.append(pack(strategy.snapshot()))

    cerebro = paper_cerebro(source, SYMBOLS, HOUR_MS, BROKER, ())
    recorder = Recorder(derived, source, after_round=keep)
    cerebro.addstrategy(PaperStrategy, recorder=recorder, resume=resume, keep_rows=False, **options)
    cerebro.run()
    records = {name: sink.records for name, sink in derived.items()}
    return SimpleNamespace(
        records=records, counts=counts, snapshots=snapshots, lines=lines, view=recorder.view
    )


@pytest.fixture(scope="module")
def whole(toy: Any, papers: Any) -> Any:
    """An uninterrupted run: its rounds, options and everything it left."""
    timeline = toy.timeline(toy.grid(toy.candles(days=DAYS)), toy.settings, sessions=(2, 6))
    until = tuple(bundle.info.trained_until_ms for bundle in timeline.bundles)
    options = papers.options(SessionTimeline(timeline.bundles, False, until))
    options |= {"max_daily_loss_pct": 2.0, "cooldown_candles": 1, "band": (2.0, 4.0)}
    shown = shown_rounds(toy, 5)
    return SimpleNamespace(shown=shown, options=options, run=play(shown, options))


def test_run_that_is_cut_off_has_something_to_lose(whole: Any) -> None:
    """Equality of sessions that neither trade nor roll over would prove nothing."""
    records = whole.run.records
    assert sum(row["status"] == "filled" for row in records["fills"]) >= 30
    assert {"refused", "cancelled"} <= {row["status"] for row in records["fills"]}
    assert len({row["model_hash"] for row in records["embeddings"]}) == 2
    assert len(records["evidence"]) >= 5
    assert len({row["mean_net_bps"] for row in records["evidence"]}) >= 5
    waiting = [unpack(kept)["account"]["orders"] for kept in whole.run.snapshots]
    assert sum(len(orders) > 0 for orders in waiting) >= 30
    assert len({unpack(kept)["symbols"]["X"]["threshold"]["threshold"]["quantile"]
                for kept in whole.run.snapshots}) >= 2  # fmt: skip


def in_position(kept: dict[str, Any]) -> bool:
    """Whether something is held: its entry's time and price count."""
    return any(size for _, size, _ in kept["account"]["positions"])


def order_waits(kept: dict[str, Any]) -> bool:
    """Whether an order fills, or is cancelled, in a later round."""
    return bool(kept["account"]["orders"])


def lagging(kept: dict[str, Any]) -> bool:
    """Whether a symbol's last bar lies far behind the others'."""
    closes = [bar[0] for bar in kept["bars"].values()]
    return max(closes) - min(closes) > 3 * HOUR_MS


@settings(max_examples=4, derandomize=True, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.sampled_from([in_position, order_waits, lagging, bool]), st.randoms())
@example(in_position, random.Random(1))
@example(order_waits, random.Random(2))
@example(lagging, random.Random(3))
def test_continued_from_any_round_it_records_the_same_to_the_bit(
    whole: Any, when: Any, rng: random.Random
) -> None:
    """A part of the state that is not kept: the restarted session would trade another account."""
    run = whole.run
    cut = rng.choice([n for n, kept in enumerate(run.snapshots[:-40]) if when(unpack(kept))]) + 1
    rest = play(whole.shown[cut:], whole.options, unpack(run.snapshots[cut - 1]))
    for name in DERIVED:
        expected = run.records[name][run.counts[cut - 1][name] :]
        assert rest.records[name] == expected, name
    assert rest.snapshots == run.snapshots[-1:]
    assert rest.lines == run.lines[cut:]
    assert rest.view == run.view


# Attribute -> why a restart need not be handed it; everything else a class sets must be kept.
KEPT: dict[type, set[str]] = {
    MacroStream: {"_candles", "_market", "_coming", "_features", "rows", "next_open_ms",
                  "session_ms", "state", "_kept", "_forecasts"},
    ScoreStream: {"_scored_ms"},
    RoundScorer: {"_nets"},
    MicroStream: {"_rings", "_recent", "_values", "_context"},
    Ring: {"end", "_rows"},
    ScoreThreshold: {"quantile", "_recent", "_ordered", "_fixed", "_session", "_counts_sessions",
                     "_signals", "_counts"},
    AdaptiveThreshold: {"_state", "_next_seed"},
    SymbolState: {"order", "entry_price", "entry_open_ms", "exit_reason", "no_entry_before_ms"},
    AccountCheck: {"_cash", "_moved", "_positions", "_traded", "_difference"},
    MacroMicroStrategy: {"states", "_session_ms", "_session_equity", "_entries_blocked", "meter"},
    FixedFraction: set(),
    VolatilityTarget: set(),
    EvidenceMeter: {"session_ms", "bets", "shadows"},
    ShadowSignals: {"due_ms", "_waiting", "_day"},
    Bet: {"open", "wealth", "_days", "_sum", "_squares", "_against"},
    Recorder: {"view", "_session_ms", "_went_live"},
}  # fmt: skip
NOT_STATE: dict[type, dict[str, str]] = {
    MacroStream: {
        **dict.fromkeys(("timeline", "settings", "table", "scaled_columns", "_cache"), "given"),
        "clean": "of the candles",
        "in_rings": "-1: the rings of features are loaded again",
        "rolled": "of the last candle alone",
        "fresh_rows": "of the last candle alone",
        "rollover_s": "a measurement",
        "_waiting": "none once the features are kept",
    },
    ScoreStream: dict.fromkeys(("macro", "_window", "_scorer", "_slot"), "given") | {
        "_scores": "of the last candle alone",
    },
    RoundScorer: {
        "members": "given",
        "_features": "of the candles",
        "seconds": "a measurement",
    },
    MicroStream: dict.fromkeys(
        ("net", "slots", "_embed", "_taps", "_local", "_deepen", "_recall_out", "_ask", "_hidden",
         "_output", "_whiten", "_film_product", "_products", "_most"), "the network"
    ) | {"_layers": "the rings beside the network"},
    Ring: {"size": "given"},
    ScoreThreshold: {"settings": "given"},
    AdaptiveThreshold: {
        "_seeds": "of the timeline",
        "_done": "counts the bars of this run",
        "_stamps": "a line",
    },
    SymbolState: dict.fromkeys(
        ("data", "clock", "score", "threshold", "interval_ms", "lines", "readers"), "given"
    ) | {"bars": "counts this run's bars", "shadow": "of the meter", "decides": "of backtests"},
    AccountCheck: {},
    FixedFraction: {"_share": "given"},
    VolatilityTarget: dict.fromkeys(("_daily", "_fraction", "_symbols", "_lines", "_readers"),
                                    "given"),
    EvidenceMeter: {"settings": "given", "waits": "given", "rows": "journalled each round"},
    ShadowSignals: {"measure": "given"},
    Bet: {"_settings": "given", "needed": "given"},
    MacroMicroStrategy: {
        **dict.fromkeys(("_state_of", "_sizing", "_opened", "_has_ledger", "_reports"), "given"),
        **dict.fromkeys(("_quick_step", "_fast_loop", "_marks", "_gives_up", "signals", "fills",
                         "trades", "equity", "evidence", "hears_only_ends"),
                        "of backtests"),
    },
    Recorder: {
        **dict.fromkeys(("_derived", "_source", "_on_event", "_settle", "_after_round", "_timed"),
                        "given"),
        "_untold": "empty between rounds",
        "latency_s": "a measurement",
    },
}  # fmt: skip


@pytest.mark.parametrize("owner", KEPT, ids=lambda owner: owner.__name__)
def test_whatever_a_class_remembers_is_kept_or_need_not_be(owner: type) -> None:
    """An attribute that is added later, and is missing from the restarted session alone."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    targets = [
        target
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
    ]
    mine = {t.attr for t in targets if isinstance(t.value, ast.Name) and t.value.id == "self"}
    unplaced = mine - KEPT[owner] - NOT_STATE[owner].keys()
    assert not unplaced, f"keep {unplaced} in {owner.__name__}.snapshot, or say why not"
    assert KEPT[owner] | NOT_STATE[owner].keys() <= mine
