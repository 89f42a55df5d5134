"""Nested values with arrays as bytes: JSON for what is small, raw arrays behind it, a SHA-256.

    8 bytes     MAGIC
    8 bytes     length of the JSON, little-endian
    JSON        the values, keys sorted; an array stands there as its dtype and shape
    arrays      their bytes in the order of the JSON, little-endian, C order
    32 bytes    SHA-256 of all before

No code runs when it is read. The same values give the same bytes. Left out: objects of any class.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np

MAGIC = b"CPPNST01"
_LENGTH_BYTES, _DIGEST_BYTES = 8, 32
_ARRAY = "__array__"
_DTYPES = ("<f8", "<f4", "<i8")


def pack(values: dict[str, Any]) -> bytes:
    """The values as bytes; NaN and infinities are kept as they are.

    Parameters
    ----------
    values : dicts with text keys, lists, texts, numbers, None; float64, float32 or int64 arrays.

    Raises
    ------
    TypeError
        When a value is of another kind.
    """
    arrays: list[bytes] = []
    text = json.dumps(_plain(values, arrays), separators=(",", ":")).encode()
    content = b"".join([MAGIC, len(text).to_bytes(_LENGTH_BYTES, "little"), text, *arrays])
    return content + hashlib.sha256(content).digest()


def _plain(value: Any, arrays: list[bytes]) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value) or _ARRAY in value:
            raise TypeError(f"expected text keys, found {list(value)}")
        return {key: _plain(value[key], arrays) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item, arrays) for item in value]
    if isinstance(value, np.ndarray):
        if value.dtype.str not in _DTYPES:
            raise TypeError(f"expected an array of {', '.join(_DTYPES)}, found {value.dtype.str}")
        arrays.append(np.ascontiguousarray(value).tobytes())
        return {_ARRAY: [value.dtype.str, list(value.shape)]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"cannot pack a {type(value).__name__}")


def unpack(content: bytes) -> dict[str, Any]:
    """The values that `pack` was given, tuples as lists.

    Raises
    ------
    ValueError
        When the bytes are not those of a packing, or were changed.
    """
    start = len(MAGIC) + _LENGTH_BYTES
    if content[: len(MAGIC)] != MAGIC or len(content) < start + _DIGEST_BYTES:
        raise ValueError("it is cut off, or of another format")
    inner, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(inner).digest() != digest:
        raise ValueError("it was changed after it was written: its SHA-256 does not match")
    length = int.from_bytes(inner[len(MAGIC) : start], "little")
    text, rest = inner[start : start + length], inner[start + length :]
    values, used = _whole(json.loads(text), rest, 0)
    if used != len(rest) or not isinstance(values, dict):
        raise ValueError(f"{len(rest) - used} bytes are left over behind its arrays")
    return values


def _whole(value: Any, rest: bytes, offset: int) -> tuple[Any, int]:
    if isinstance(value, list):
        items = []
        for item in value:
            whole, offset = _whole(item, rest, offset)
            items.append(whole)
        return items, offset
    if not isinstance(value, dict):
        return value, offset
    if _ARRAY in value:
        kind, shape = value[_ARRAY]
        count = math.prod(shape)
        array = np.frombuffer(rest, dtype=kind, count=count, offset=offset).reshape(shape).copy()
        return array, offset + array.nbytes
    made = {}
    for key, item in value.items():
        made[key], offset = _whole(item, rest, offset)
    return made, offset


def digest_of(values: dict[str, Any]) -> str:
    """SHA-256 over the values, in hexadecimal digits; equal for equal values alone."""
    return pack(values)[-_DIGEST_BYTES:].hex()
