"""Journals read while they grow, whatever their ends look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.desk import journals
from cppncripto_strategy.desk.journals import CursorError, Follower, last_cursor, read_part
from cppncripto_strategy.feeds.live.journal import line_of, read_lines

LINES = [line_of({"i": number, "text": "x" * (number % 7)}) for number in range(50)]


@given(cuts=st.lists(st.integers(0, sum(map(len, LINES))), max_size=8))
def test_follower_gives_each_record_once_wherever_the_file_ended(tmp_path_factory, cuts):
    """A half-written line that is lost, or read twice, when the rest of it comes."""
    path, content = tmp_path_factory.mktemp("follow") / "j.jsonl", b"".join(LINES)
    follower, seen = Follower(path), []
    for cut in [*sorted(cuts), len(content)]:
        path.touch()
        with path.open("r+b") as file:  # grows in place, as a journal does
            file.write(content[:cut])
        seen += list(follower.fresh())
    assert [record["i"] for record in seen] == list(range(50))
    assert follower.damaged == 0


def test_damaged_line_is_counted_and_passed_over(tmp_path):
    """One bad sector that hides the rest of the day."""
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"".join([*LINES[:10], b"00000000 {}\n", b"\xff\0garbage\n", *LINES[10:]]))
    follower = Follower(path)
    assert [record["i"] for record in follower.fresh()] == list(range(50))
    assert follower.damaged == 2


def test_file_without_lines_is_read_in_bounded_memory(tmp_path, monkeypatch):
    """A file of one endless line that is kept in memory."""
    monkeypatch.setattr(journals, "CHUNK", 1_000)
    monkeypatch.setattr(journals, "LONGEST", 4_000)
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"x" * 50_000)
    follower = Follower(path)
    assert list(follower.fresh()) == []
    assert follower.damaged > 0


def test_replaced_file_is_noticed(tmp_path):
    """A session that was moved away and begun anew, shown as the sum of both."""
    path, other = tmp_path / "j.jsonl", tmp_path / "k.jsonl"
    path.write_bytes(b"".join(LINES))
    follower = Follower(path)
    list(follower.fresh())
    other.write_bytes(LINES[0])
    other.replace(path)
    assert list(follower.fresh()) == []
    assert follower.replaced


def test_only_the_end_is_read_where_that_is_asked_for(tmp_path):
    """A page that reads gigabytes of decisions to draw the last hundred."""
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"".join(LINES))
    last = Follower(path, last_bytes=len(LINES[-1]) + len(LINES[-2]) + 3)
    assert [record["i"] for record in last.fresh()] == [48, 49]


@given(
    limit=st.integers(1, 60),
    torn=st.integers(0, len(LINES[0]) - 1),
    piece=st.integers(1, sum(map(len, LINES))),
)
def test_pages_give_every_record_once(tmp_path_factory, limit, torn, piece):
    """A cursor that skips a line, repeats one, or leads into the half-written end."""
    path = tmp_path_factory.mktemp("pages") / "j.jsonl"
    path.write_bytes(b"".join(LINES) + LINES[0][:torn])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "PIECE", piece)
        _pages_give_every_record_once(path, limit)


def _pages_give_every_record_once(path, limit):
    seen, cursor = [], 0
    while True:
        part = read_part(path, cursor, limit)
        assert len(part.records) <= limit
        seen += part.records
        if part.next is None or part.next == cursor:
            break
        cursor = part.next
    assert seen == read_lines(path)


def test_last_page_ends_where_the_file_does(tmp_path):
    """`the last 3 decisions` that are the first three, or two and a half."""
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"".join(LINES) + b"half")
    part = read_part(path, last_cursor(path, 3), 100)
    assert [record["i"] for record in part.records] == [47, 48, 49]
    assert last_cursor(path, 1_000) == 0
    assert last_cursor(tmp_path / "absent", 3) == 0


@given(
    limit=st.integers(1, 60),
    torn=st.integers(0, len(LINES[0]) - 1),
    piece=st.integers(1, sum(map(len, LINES))),
)
def test_last_page_is_the_same_in_whatever_pieces_it_is_read(tmp_path_factory, limit, torn, piece):
    """A newest page that begins within a line, or a line too late, where a piece ended."""
    path = tmp_path_factory.mktemp("last") / "j.jsonl"
    path.write_bytes(b"".join(LINES) + LINES[0][:torn])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "PIECE", piece)
        cursor = last_cursor(path, limit)
    assert cursor == sum(len(line) for line in LINES[: max(0, len(LINES) - limit)])


@pytest.mark.parametrize("cursor", [1, len(LINES[0]) - 1, 10**9])
def test_cursor_that_was_never_given_is_refused(tmp_path, cursor):
    """Half a line that is reported as damage."""
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"".join(LINES))
    with pytest.raises(CursorError, match="no line begins"):
        read_part(path, cursor, 10)
