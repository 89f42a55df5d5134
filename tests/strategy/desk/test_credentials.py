"""The token's file, and the cookies of who showed it."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from cppncripto_strategy.desk.credentials import (
    MAX_SIGNED_IN,
    SIGNED_IN_S,
    Credentials,
    make_token,
    read_token,
)
from cppncripto_strategy.errors import DeskError


def test_token_is_its_owners_alone_whatever_the_umask(tmp_path):
    """A token that a second user of the machine reads, if only for a moment."""
    before = os.umask(0)
    try:
        assert make_token(tmp_path / "deep" / "token")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep" / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
    assert len(read_token(tmp_path / "deep" / "token")) >= 40


def test_many_first_starts_make_one_token(tmp_path):
    """Two desks started at once, of which one has another token than the file."""
    path, made = tmp_path / "token", []
    threads = [threading.Thread(target=lambda: made.append(make_token(path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["token"]
    token = read_token(path)
    assert not make_token(path)
    assert read_token(path) == token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_token_that_others_may_read_is_refused(token_file, mode):
    """A file that a backup or a copy left open."""
    token_file.chmod(mode)
    with pytest.raises(DeskError, match="--new-token"):
        read_token(token_file)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 50, b"two words" * 9 + b"\0"])
def test_a_file_without_a_token_is_refused(token_file, content):
    """An empty token, which an empty header would match."""
    token_file.write_bytes(content)
    with pytest.raises(DeskError, match="no token"):
        read_token(token_file)


def test_a_link_is_not_followed(token_file, tmp_path):
    """A token that somebody pointed at a file whose content they know."""
    (tmp_path / "link").symlink_to(token_file)
    with pytest.raises(DeskError, match="cannot be read"):
        read_token(tmp_path / "link")


def test_only_the_whole_token_is_right(token_file, token):
    """A prefix, another case, or nothing at all."""
    known = Credentials(token_file)
    assert known.is_token(token)
    for wrong in ("", token[:-1], token + "x", token.upper(), "\0", "ä" * 40, "\udc80" * 40):
        assert not known.is_token(wrong)


def test_comparison_is_the_constant_time_one(token_file, token, monkeypatch):
    """`==`, whose time says how many letters are right."""
    asked = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: asked.append((a, b)) or a == b)
    assert Credentials(token_file).is_token(token)
    assert len(asked[0][0]) == len(asked[0][1]) == 32


def test_cookies_end(token_file):
    """A browser that was signed in once and is so always."""
    now = [0.0]
    known = Credentials(token_file, clock=lambda: now[0])
    cookie, other = known.sign_in(), known.sign_in()
    assert cookie != other
    assert known.is_signed_in(cookie)
    known.sign_out(cookie)
    assert not known.is_signed_in(cookie)
    now[0] = SIGNED_IN_S - 1
    assert known.is_signed_in(other)
    now[0] = SIGNED_IN_S
    assert not known.is_signed_in(other)
    assert not known.is_signed_in("")


def test_cookies_are_bounded(token_file):
    """Memory that whoever has the token fills by signing in."""
    known = Credentials(token_file)
    first = known.sign_in()
    for _ in range(MAX_SIGNED_IN):
        last = known.sign_in()
    assert not known.is_signed_in(first)
    assert known.is_signed_in(last)


def test_a_new_token_ends_the_old_one_and_every_cookie(token_file, token):
    """A stolen token that still opens the desk after it was replaced."""
    known = Credentials(token_file)
    cookie = known.sign_in()
    assert make_token(token_file, replace=True)
    assert not known.is_token(token)
    assert not known.is_signed_in(cookie)
    assert known.is_token(read_token(token_file))


def test_a_token_that_is_gone_lets_nobody_in(token_file, token):
    """A removed file that leaves the old token valid, or an empty one."""
    known = Credentials(token_file)
    token_file.unlink()
    assert not known.is_token(token)
    assert not known.is_token("")
