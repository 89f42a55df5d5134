"""Restarts that begin at a checkpoint: the same session, less to read; never from a wrong one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cppncripto_strategy.errors import CheckpointError
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.live.journal import line_of, read_lines
from cppncripto_strategy.paper.checking import next_checkpoint
from cppncripto_strategy.paper.checkpoint import CHECKPOINT_FILE, Checkpoint
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.packing import digest_of
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.session import SessionFolder


@pytest.fixture(scope="module")
def traded(papers: Any, toy_session_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A session of two days, its states at both midnights, and the same one three days later.

    Attributes: path, later, trade(path, until_ms), first and second (rounds, digest), end_ms.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    path, candles, timeline, start_ms = toy_session_of(folder)
    day_ms = timeline.first_session_ms
    states: dict[int, tuple[int, str]] = {}

    def keep(session: SessionFolder, strategy: Any) -> None:
        if strategy.p.recorder.view.close_ms % DAY_MS == 0:
            close_ms = strategy.p.recorder.view.close_ms
            states[close_ms] = session.shown, digest_of(strategy.snapshot())

    def trade(where: Path, until_ms: int) -> None:
        papers.trade(where, candles, day_ms + 2 * DAY_MS + 5 * HOUR_MS, until_ms)

    papers.trade(path, candles, start_ms, day_ms + 2 * DAY_MS + 5 * HOUR_MS, keep)
    later = folder / "later"
    shutil.copytree(path, later)
    end_ms = day_ms + 5 * DAY_MS + 7 * HOUR_MS
    trade(later, end_ms)
    options = papers.options(SessionTimeline.of_session(path))
    first, second = states[day_ms + DAY_MS], states[day_ms + 2 * DAY_MS]
    return SimpleNamespace(
        path=path, later=later, trade=trade, first=first, second=second, end_ms=end_ms,
        options=options,
    )  # fmt: skip


@pytest.fixture
def session(traded: Any, tmp_path: Path) -> Path:
    """A copy of the two days with a checkpoint of the second midnight, made from the first's."""
    path = tmp_path / "session"
    shutil.copytree(traded.path, path)
    next_checkpoint(path, traded.options, *traded.first).save(path)
    next_checkpoint(path, traded.options, *traded.second).save(path)
    return path


def events(path: Path) -> list[dict[str, Any]]:
    """What happened to a checkpoint."""
    return [e for e in read_lines(path / "events.jsonl") if e["kind"].startswith("checkpoint")]


def same(one: Path, other: Path) -> None:
    """Two sessions saw, decided and traded the same."""
    first, second = Recording.read(one), Recording.read(other)
    assert first.past == second.past
    assert first.derived == second.derived


def test_restart_from_a_checkpoint_reads_hours_and_ends_as_the_whole_replay(
    traded: Any, session: Path
) -> None:
    """A restart that costs a year, or one that is quick and trades another account."""
    with SessionFolder(session) as folder:
        assert len(folder.past) == 5
        assert folder.shown == traded.second[0] + 5
    traded.trade(session, traded.end_ms)
    assert events(session) == []
    same(session, traded.later)
    fills = Recording.read(session).derived["fills"]
    assert sum(row["created_ms"] > traded.end_ms - 72 * HOUR_MS for row in fills) >= 2


def flipped(path: Path, _traded: Any) -> None:
    """A bit that fell over."""
    content = bytearray((path / CHECKPOINT_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (path / CHECKPOINT_FILE).write_bytes(bytes(content))


def richer(path: Path, _traded: Any) -> None:
    """A state that was never the session's: a cent more."""
    kept = Checkpoint.load(path)
    assert kept is not None
    account = kept.state["account"]
    account["cash"] += 0.01
    account["check"]["cash"] += 0.01
    kept.save(path)


def other_networks(path: Path, _traded: Any) -> None:
    """A state of bundles that the session lacks."""
    kept = Checkpoint.load(path)
    assert kept is not None
    kept.state["symbols"]["X"]["score"]["macro"]["kept"]["bundle"] = "0" * 16
    kept.save(path)


def other_session(path: Path, traded: Any) -> None:
    """Another session's checkpoint, copied here."""
    text = (path / "session.json").read_text()
    (path / "session.json").write_text(text.replace('"fee_bps": 10.0', '"fee_bps":  10.0'))


def shorter_journal(path: Path, _traded: Any) -> None:
    """Lines that never reached the disk when the power failed."""
    records = read_lines(path / "decisions.jsonl")[:-10]
    (path / "decisions.jsonl").write_bytes(b"".join(map(line_of, records)))


@pytest.mark.parametrize("spoil", [flipped, richer, other_networks, other_session, shorter_journal])
def test_checkpoint_that_does_not_fit_is_named_and_everything_is_replayed(
    spoil: Callable[[Path, Any], None], traded: Any, session: Path
) -> None:
    """A wrong state must never trade, and must not stop a session that its journals can rebuild."""
    spoil(session, traded)
    traded.trade(session, traded.end_ms)
    [event] = events(session)
    assert event["kind"] == "checkpoint unused"
    assert event["reason"]
    same(session, traded.later)


def test_checkpoint_needs_the_state_the_session_had(traded: Any, session: Path) -> None:
    """A replay that ends elsewhere proves that something is not kept."""
    rounds, digest = traded.second
    (session / CHECKPOINT_FILE).unlink()
    with pytest.raises(CheckpointError, match="another state"):
        next_checkpoint(session, traded.options, rounds, digest[::-1])
    with pytest.raises(CheckpointError, match="another state"):
        next_checkpoint(session, traded.options, rounds - 1, digest)
    with pytest.raises(CheckpointError, match="are recorded"):
        next_checkpoint(session, traded.options, rounds + 50, digest)


@pytest.mark.parametrize("whole", [False, True])
def test_checkpoint_needs_every_record_to_come_again(
    whole: bool, traded: Any, session: Path
) -> None:
    """A journal that says otherwise than the replay: neither may be trusted."""
    next_checkpoint(session, traded.options, *traded.second, whole=True)
    if not whole:
        (session / CHECKPOINT_FILE).unlink()
        next_checkpoint(session, traded.options, *traded.first).save(session)
    records = read_lines(session / "equity.jsonl")
    records[-10]["equity"] += 0.01
    (session / "equity.jsonl").write_bytes(b"".join(map(line_of, records)))
    with pytest.raises(CheckpointError, match="the replay gives"):
        next_checkpoint(session, traded.options, *traded.second, whole=whole)
