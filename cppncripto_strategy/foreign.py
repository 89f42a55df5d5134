"""What a person or a disk hands in: whatever it makes a parser raise becomes one of our errors.

Parsers raise what they like (decode, struct, zip, arrow, JSON and TOML errors, recursion, overflow,
memory), and a list of them is never complete. So `reading` turns every exception that is not ours
into ours, with the file's name and what to do: keep what stands inside it to reading.

A file that nobody should change by hand carries the SHA-256 of its own content (`sealed`).

Left out: what the content means; whoever reads a file checks that, inside the same `reading`.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import CppnError

SEAL = "sha256"
_REASON_LENGTH = 300
# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


@contextmanager
def reading(path: Path | str, what: str, error: type[CppnError], fix: str = "") -> Iterator[None]:
    """Read a file in here: an exception that is not ours comes out as `error`.

    Parameters
    ----------
    path : the file, as the message names it.
    what : what it should be, such as "recipe".
    fix : what to do, a sentence.
    """
    try:
        yield
    except CppnError:
        raise
    except Exception as cause:
        text = f"{path} is not a readable {what}: {_reason(cause)}"
        raise error(f"{text}. {fix}" if fix else text) from cause


@contextmanager
def writing(path: Path, error: type[CppnError]) -> Iterator[None]:
    """Make folders and files in here: an OSError comes out as `error`."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as cause:
        way = cause.filename or path
        raise error(
            f"{path} cannot be made: a file is in the way ({way}). Give another place, or move it"
        ) from cause
    except OSError as cause:
        raise error(f"{cause.filename or path} cannot be written: {_reason(cause)}") from cause


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without the byte order mark that some editors put before it.

    Raises
    ------
    OSError
        When the file cannot be read.
    ValueError
        When it is not UTF-8; the message names the encoding it seems to have.
    """
    content = path.read_bytes()
    for mark, name in _MARKS:
        if content.startswith(mark):
            raise ValueError(f"it is {name}, and UTF-8 is expected: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        guess = "UTF-16" if b"\0" in content[:100] else "Windows-1252 or Latin-1"
        raise ValueError(
            f"byte 0x{content[cause.start]:02x} at position {cause.start} is not UTF-8 (it may be"
            f" {guess}): save it as UTF-8"
        ) from cause


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises
    ------
    OSError, ValueError
        As `read_text` does, or when it holds something else.
    """
    values = json.loads(read_text(path))
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, found {type(values).__name__}")
    return values


def require_int(value: object) -> int:
    """The value, when it is a whole number (True is none). Raises TypeError."""
    if type(value) is not int:
        raise TypeError(f"expected a whole number, found {value!r}")
    return value


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the SHA-256 of their JSON, keys sorted, under the key `SEAL`."""
    return {**values, SEAL: _digest(values)}


def unsealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that `sealed` was given.

    Raises
    ------
    ValueError
        When they are not the ones that were sealed.
    """
    inner = {name: value for name, value in values.items() if name != SEAL}
    if SEAL not in values:
        raise ValueError(f"it carries no {SEAL}: an older version wrote it, or a hand")
    if values[SEAL] != _digest(inner):
        raise ValueError(
            "it was changed after it was written: the SHA-256 of its content is not the one it"
            " carries"
        )
    return inner


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _reason(cause: Exception) -> str:
    """An exception in words for a person."""
    if isinstance(cause, FileNotFoundError):
        return "No such file"  # pyarrow says the path alone
    if isinstance(cause, OSError):
        return cause.strerror or str(cause) or type(cause).__name__
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    if isinstance(cause, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(cause, KeyError):
        return f"it lacks {cause.args[0]!r}" if cause.args else "it lacks a key"
    text = " ".join(str(cause).split())[:_REASON_LENGTH] or type(cause).__name__
    if isinstance(cause, tomllib.TOMLDecodeError):
        return f"not valid TOML: {text}"
    return f"not valid JSON: {text}" if isinstance(cause, json.JSONDecodeError) else text
