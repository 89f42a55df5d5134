"""Who may look: a bearer token in a file, and the sessions of browsers that showed it once.

The file has mode 0600 and is made whole or not at all; it is compared in constant time, and never
logged. A browser gets a random cookie instead of the token; cookies live in this process alone, end
after twelve hours, and all of them end when the token is replaced.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cppncripto_strategy.atomic import sync_folder
from cppncripto_strategy.errors import DeskError
from cppncripto_strategy.foreign import writing
from cppncripto_strategy.system import open_without_following, put_if_absent, read_by_others

log = logging.getLogger(__name__)

SIGNED_IN_S = 12 * 3_600.0
MAX_SIGNED_IN = 1_000
# Of random bytes; and the shortest token that a person may put into the file.
TOKEN_BYTES, SHORTEST = 32, 32


def default_token_file() -> Path:
    """`$XDG_CONFIG_HOME/cppn-bt/desk-token`: results are copied and shared, a token is not."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "cppn-bt" / "desk-token"


def make_token(path: Path, replace: bool = False) -> bool:
    """Make the token's file where there is none, or a new one in its place; whether it was made.

    Raises
    ------
    DeskError
        When it cannot be written.
    """
    with writing(path, DeskError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)  # mkstemp makes it with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                put_if_absent(temporary, path)  # fails where another process was first
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return True


def read_token(path: Path) -> str:
    """The token.

    Raises
    ------
    DeskError
        When others may read the file, or it holds no token.
    """
    try:
        handle = open_without_following(path)
        with os.fdopen(handle, encoding="ascii", errors="replace") as file:
            state = os.fstat(file.fileno())
            token = file.read(4_096).strip()
    except OSError as cause:
        raise DeskError(f"the token {path} cannot be read: {cause.strerror or cause}") from cause
    if not stat.S_ISREG(state.st_mode) or read_by_others(state.st_mode):
        raise DeskError(
            f"others may read the token: {path} has mode {stat.S_IMODE(state.st_mode):o}. Make a"
            " new one with --new-token, which gives it mode 600"
        )
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
        raise DeskError(f"{path} holds no token: make a new one with --new-token")
    return token


class Credentials:
    """The token, and who is signed in with it. One per desk; any thread may ask.

    Parameters
    ----------
    path : the token's file; read again when it is replaced.
    clock : seconds that only grow.

    Raises
    ------
    DeskError
        As `read_token` does.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._signed_in: OrderedDict[bytes, float] = OrderedDict()
        self._seen = _identity(path)
        self._token = _digest(read_token(path))

    def is_token(self, text: str) -> bool:
        """Whether this is the token, in a time that does not depend on how much of it is right."""
        with self._lock:
            self._follow()
            return hmac.compare_digest(self._token, _digest(text))

    def sign_in(self) -> str:
        """A new cookie; the oldest one ends where there are a thousand."""
        cookie = secrets.token_urlsafe(TOKEN_BYTES)
        with self._lock:
            self._signed_in[_digest(cookie)] = self._clock() + SIGNED_IN_S
            while len(self._signed_in) > MAX_SIGNED_IN:
                self._signed_in.popitem(last=False)
        return cookie

    def is_signed_in(self, cookie: str) -> bool:
        """Whether a cookie is one of ours and has not ended."""
        # Looked up by its digest: a lookup's time says nothing about the cookie itself.
        key = _digest(cookie)
        with self._lock:
            self._follow()
            until_s = self._signed_in.get(key)
            if until_s is not None and until_s <= self._clock():
                del self._signed_in[key]
                until_s = None
            return until_s is not None

    def sign_out(self, cookie: str) -> None:
        """End a cookie."""
        with self._lock:
            self._signed_in.pop(_digest(cookie), None)

    def _follow(self) -> None:
        """Take over a token that replaced ours; everybody signs in anew."""
        seen = _identity(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        self._signed_in.clear()
        try:
            self._token = _digest(read_token(self._path))
        except DeskError as error:
            self._token = _digest(secrets.token_urlsafe(TOKEN_BYTES))  # nobody's
            log.warning("nobody can sign in: %s", error)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode
