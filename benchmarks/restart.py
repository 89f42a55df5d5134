"""How long a paper session that is a year old takes to start again, and how much memory it holds.

A year of planted 5-minute candles of three symbols is fed to a session with networks of the default
shapes, through the very code that trades live; the journals are written as a running session writes
them, only without waiting for the disk. A checkpoint stands at the last midnight, as the day's
process leaves it, and the session stops half a day later. Then a process of its own opens the
folder, rebuilds the state and would trade the next candle: its wall time counts from before the
interpreter starts. With `--after` another one trades so many days more, and says how much its
memory grew from the first of them to the last. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cppncripto_strategy.commands.exchange import planted_candles
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.live.journal import line_of, round_record
from cppncripto_strategy.feeds.live.rounds import NO_SYMBOLS, RecordedRounds, Round, rows_of
from cppncripto_strategy.market import Market
from cppncripto_strategy.paper.checking import place_of
from cppncripto_strategy.paper.checkpoint import Checkpoint, identity
from cppncripto_strategy.paper.create import RECIPE_FILE, options_of
from cppncripto_strategy.paper.networks import SessionTimeline, todays_bundle
from cppncripto_strategy.paper.recorder import PaperStrategy, Recorder
from cppncripto_strategy.paper.session import (
    DERIVED,
    Record,
    SessionFacts,
    SessionFolder,
    plain,
)
from cppncripto_strategy.paper.trader import first_candle_ms, paper_cerebro, recorded_rounds
from cppncripto_strategy.recipe import Recipe, parse_recipe
from cppncripto_strategy.results import to_toml, write_text

SYMBOLS = ("AUSDT", "BUSDT", "CUSDT")
START_DAY, SEED, STEP_MS = 42, 7, 300_000
AFTER_MIDNIGHT = 144
RESTART_LIMIT_S = 30.0


def recipe() -> Recipe:
    """Networks of the default shapes; one epoch, since only their cost matters."""
    return parse_recipe(
        {
            "name": "restart",
            "symbols": SYMBOLS,
            "macro": {"epochs": 1},
            "micro": {"epochs": 1, "initialisations": 1},
            "walkforward": {"train_days": 14, "validate_days": 4, "retrain_days": 7},
            "strategy": {"hold_candles": 6},
        }
    )


class Written:
    """A journal that is appended to as records come, and knows where it stands."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.file = path.open("wb")

    def add(self, record: Record) -> None:
        """Append a record."""
        self.file.write(line_of(plain(record)))
        self.count += 1

    def flush(self) -> int:
        """Hand everything to the system; the bytes so far."""
        self.file.flush()
        return self.file.tell()


class Fed(RecordedRounds):
    """Rounds of candles that are made one by one and written down before they are shown."""

    def __init__(self, rounds: Iterator[Round], live_ms: int, journals: Mapping[str, Written]):
        super().__init__([])
        self._coming, self._live_ms, self._journals = rounds, live_ms, journals
        self._over = False

    @property
    def finished(self) -> bool:
        """True when the last one was shown."""
        return self._over

    def waiting(self) -> int:
        """Whether there may be more."""
        return int(not self._over)

    def open_next(self, wait_s: float) -> Round | None:
        """Write and show the next one."""
        moment = next(self._coming, None)
        self.current, self.allowed = moment, NO_SYMBOLS
        if moment is None:
            self._over = True
            return None
        if moment.close_ms >= self._live_ms:
            self.allowed = frozenset(moment.candles)
        self.status = "LIVE" if self.allowed else "DELAYED"
        journals = self._journals
        index = journals["rounds"].count
        journals["rounds"].add(round_record(moment))
        shown = {"i": index, "t": moment.close_ms, "a": sorted(self.allowed)}
        journals["opened"].add(shown)
        return moment


class Continued(Fed):
    """Recorded rounds, and then rounds as they are made."""

    def __init__(self, past: RecordedRounds, coming: Iterator[Round], journals: Any) -> None:
        super().__init__(coming, 0, journals)
        self._past = past

    def waiting(self) -> int:
        """Whether there may be more."""
        return self._past.waiting() or super().waiting()

    def open_next(self, wait_s: float) -> Round | None:
        """The next recorded one, then the next one made."""
        if self._past.finished:
            return super().open_next(wait_s)
        self.current = self._past.open_next(wait_s)
        self.allowed, self.status = self._past.allowed, self._past.status
        return self.current


def make_session(path: Path, days: int) -> int:
    """A session of that many live days with a checkpoint at the last midnight; its rounds."""
    settings = recipe()
    candles = planted_candles(SYMBOLS, START_DAY + days + 1, "5m", SEED)
    start_ms = int(candles[SYMBOLS[0]].open_time[0]) + START_DAY * DAY_MS
    known = {s: c[c.open_time + STEP_MS <= start_ms] for s, c in candles.items()}
    trained = todays_bundle(settings, Market(known), start_ms, None, None)
    path.mkdir(parents=True)
    write_text(path / RECIPE_FILE, to_toml(settings.to_plain()))
    until = tuple(bundle.info.trained_until_ms for bundle in trained.bundles)
    SessionTimeline(trained.bundles, False, until).save(path)
    broker = {"cash": 10_000.0, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False}
    first_ms = first_candle_ms(start_ms, STEP_MS, trained.session.warmup)
    facts = SessionFacts(SYMBOLS, "5m", first_ms, start_ms, broker)
    SessionFolder.create(path, facts).close()
    midnight_ms = start_ms + days * DAY_MS
    end_ms = midnight_ms + AFTER_MIDNIGHT * STEP_MS
    journals = {n: Written(path / f"{n}.jsonl") for n in ("rounds", "opened", *DERIVED)}
    source = Fed(rounds_of(candles, first_ms, end_ms), start_ms, journals)

    def keep(strategy: PaperStrategy) -> None:
        moment = source.current
        if moment is not None and moment.close_ms == midnight_ms:
            places = {n: place_of(j.path, j.flush(), j.count) for n, j in journals.items()}
            following = dict.fromkeys(SYMBOLS, midnight_ms)
            rounds = journals["rounds"].count
            Checkpoint(
                rounds, midnight_ms, places, midnight_ms, following, identity(path),
                strategy.snapshot(),
            ).save(path)  # fmt: skip

    play(source, facts, options_of(path), Recorder(journals, source, after_round=keep))
    for journal in journals.values():
        journal.file.close()
    return journals["rounds"].count


def rounds_of(candles: Mapping[str, Candles], first_ms: int, end_ms: int) -> Iterator[Round]:
    """The candles from an open time on as rounds, up to a closing time."""
    rows = {s: rows_of(c[(c.open_time >= first_ms)]) for s, c in candles.items()}
    for index in range((end_ms - first_ms) // STEP_MS):
        close_ms = first_ms + (index + 1) * STEP_MS
        yield Round(close_ms, {symbol: rows[symbol][index] for symbol in SYMBOLS})


def play(
    source: Any,
    facts: SessionFacts,
    options: Mapping[str, Any],
    recorder: Recorder,
    resume: Mapping[str, Any] | None = None,
) -> None:
    """Show every round of a source to the session's strategy."""
    cerebro = paper_cerebro(source, facts.symbols, facts.interval_ms, facts.broker, facts.filters)
    cerebro.addstrategy(PaperStrategy, recorder=recorder, resume=resume, keep_rows=False, **options)
    cerebro.run()


def start_again(path: Path) -> None:
    """What a restart does before it trades; prints rounds replayed and the memory held then."""
    with SessionFolder(path) as folder:
        resume = None if folder.checkpoint is None else folder.checkpoint.state
        replayed = len(folder.past)
        source = recorded_rounds(folder.past, resume)
        folder.forget_past()
        recorder = Recorder(folder.derived, source, settle=folder.settle)
        play(source, folder.facts, options_of(path), recorder, resume)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"replayed": replayed, "peak_mb": peak_mb, "shown": folder.shown}))


def memory_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def trade_on(path: Path, days: int) -> None:
    """Start again and trade so many days more; prints the memory after the first and the last."""
    with SessionFolder(path) as folder:
        resume = None if folder.checkpoint is None else folder.checkpoint.state
        facts, past = folder.facts, recorded_rounds(folder.past, resume)
        start_ms = folder.past[-1][0].close_ms
        folder.forget_past()
        total = (start_ms - facts.created_ms) // DAY_MS + START_DAY + days + 2
        candles = planted_candles(SYMBOLS, int(total), "5m", SEED)
        journals = {name: Written(path / f"more-{name}.jsonl") for name in ("rounds", "opened")}
        coming = rounds_of(candles, start_ms, start_ms + days * DAY_MS)
        source, seen = Continued(past, coming, journals), list[float]()

        def watch(_strategy: PaperStrategy) -> None:
            if source.allowed and source.current and source.current.close_ms % DAY_MS == 0:
                seen.append(memory_mb())

        recorder = Recorder(folder.derived, source, settle=folder.settle, after_round=watch)
        play(source, facts, options_of(path), recorder, resume)
    print(json.dumps({"days": len(seen), "memory_mb": seen[-1], "growth_mb": seen[-1] - seen[0]}))


def timed(path: Path, *arguments: str) -> dict[str, Any]:
    """Start again in another process; wall and processor seconds, and what it prints."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, __file__, "--again", str(path), *arguments]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall_s = time.perf_counter() - began
    return {"wall_s": wall_s, "processor_s": processor_s, **json.loads(told.stdout)}


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--whole", action="store_true", help="also without the checkpoint")
    parser.add_argument("--after", type=int, default=0, help="days traded after the restart")
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.again is not None and arguments.after:
        trade_on(arguments.again, arguments.after)
        return
    if arguments.again is not None:
        start_again(arguments.again)
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "session"
        began = time.perf_counter()
        rounds = make_session(path, arguments.days)
        line: dict[str, Any] = {"name": "restart", "symbols": len(SYMBOLS), "rounds": rounds}
        line["made_in_s"] = time.perf_counter() - began
        line["journals_mb"] = sum(f.stat().st_size for f in path.glob("*.jsonl")) / 2**20
        line["checkpoint_mb"] = (path / "checkpoint.bin").stat().st_size / 2**20
        line |= timed(path)
        if arguments.after:
            after = timed(path, "--after", str(arguments.after))
            line |= {f"after_{key}": value for key, value in after.items()}
        if arguments.whole:
            (path / "checkpoint.bin").unlink()
            line |= {f"whole_{key}": value for key, value in timed(path).items()}
    line["passed"] = line["wall_s"] < RESTART_LIMIT_S
    print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in line.items()}))


if __name__ == "__main__":
    main()
