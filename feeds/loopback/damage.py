"""Damaged answers of the loopback exchange: zips, checksums and REST bodies, by the fault's name.

Each function takes the honest bytes and gives what a broken or hostile server would send instead.
What breaks a connection while a body is on its way is `transport`'s.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache

from cppncripto_strategy.feeds.binance.archive import archive_zip, checksum_line

Spoil = Callable[[bytes, str], bytes]  # (honest bytes, archive's name without suffix)

BOMB_BYTES = 3_200 << 20
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
# Offsets in a member's local and central header, and in the end record.
_FLAGS, _METHOD, _CRC, _SIZE = (6, 8), (8, 10), (14, 16), (22, 24)
_DIRECTORY_SIZE, _DIRECTORY_OFFSET = 12, 16


def _both(content: bytes, offsets: tuple[int, int], form: str, value: int) -> bytes:
    """A zip of one member with a field changed in both of its headers."""
    changed = bytearray(content)
    for mark, offset in zip((_LOCAL, _CENTRAL), offsets, strict=True):
        struct.pack_into(form, changed, changed.rindex(mark) + offset, value)
    return bytes(changed)


def _end(content: bytes, offset: int, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into("<I", changed, changed.rindex(_END) + offset, value)
    return bytes(changed)


def _text(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        return packed.read(packed.infolist()[0]).decode()


def _repacked(text: str | bytes, *names: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name in names:
            packed.writestr(zipfile.ZipInfo(name), text, compress_type=method, compresslevel=1)
    return buffer.getvalue()


def _flipped(content: bytes, name: str) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def _overlapping(content: bytes, name: str) -> bytes:
    """Two entries of the directory that name the same bytes."""
    start, end = content.rindex(_CENTRAL), content.rindex(_END)
    entry, tail = content[start:end], bytearray(content[end:])
    struct.pack_into("<HH", tail, 8, 2, 2)
    struct.pack_into("<I", tail, _DIRECTORY_SIZE, 2 * len(entry))
    return content[:end] + entry + bytes(tail)


def _zip64(content: bytes, name: str) -> bytes:
    """A zip64 end record that claims a directory of an exabyte."""
    end = content.rindex(_END)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 60, 1 << 61)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    return content[:end] + record + locator + content[end:]


@lru_cache(maxsize=1)
def _digits() -> tuple[bytes, int]:
    """3 MB of deflate that unpack to 3.2 GB of digits, and their CRC-32."""
    block = b"1" * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(BOMB_BYTES >> 20):
        crc = zlib.crc32(block, crc)
    return packed * (BOMB_BYTES >> 20) + packer.flush(), crc


def _bomb(name: str, claimed: int) -> bytes:
    """3 MB that unpack to 3.2 GB of digits, and say that they are `claimed` bytes."""
    body, crc = _digits()
    member = f"{name}.csv".encode()
    sizes = (crc, len(body), claimed, len(member), 0)
    local = struct.pack("<4sHHHHHIIIHH", _LOCAL, 20, 0, 8, 0, 33, *sizes)
    central = struct.pack(
        "<4sHHHHHHIIIHHHHHII", _CENTRAL, 20, 20, 0, 8, 0, 33, *sizes, *(0, 0, 0, 0, 0)
    )
    head = local + member + body
    end = struct.pack("<4sHHHHIIH", _END, 0, 0, 1, 1, len(central + member), len(head), 0)
    return head + central + member + end


@lru_cache(maxsize=1)
def gzip_bomb() -> bytes:
    """3 MB of gzip that unpack to 3.2 GB of digits."""
    block = b"1" * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    head = packer.compress(b"[") + packer.flush(zlib.Z_FULL_FLUSH)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + packed * (BOMB_BYTES >> 20)


def _every_row(content: bytes, column: int, text: str) -> str:
    rows = [line.split(",") for line in _text(content).splitlines()]
    return "\n".join(",".join([*row[:column], text, *row[column + 1 :]]) for row in rows) + "\n"


ZIPS: dict[str, Spoil] = {
    "truncated_zip": lambda content, name: content[: len(content) // 2],
    "corrupt_zip": _flipped,
    "empty_zip": lambda content, name: _repacked(""),
    "encrypted_zip": lambda content, name: _both(content, _FLAGS, "<H", 1),
    "lzma_zip": lambda content, name: _repacked(
        _text(content), f"{name}.csv", method=zipfile.ZIP_LZMA
    ),
    "bzip2_zip": lambda content, name: _repacked(
        _text(content), f"{name}.csv", method=zipfile.ZIP_BZIP2
    ),
    "unknown_method_zip": lambda content, name: _both(content, _METHOD, "<H", 97),
    "wrong_crc_zip": lambda content, name: _both(content, _CRC, "<I", 7),
    "lying_size_zip": lambda content, name: _both(content, _SIZE, "<I", 0xFFFFFFF0),
    "bomb_zip": lambda content, name: _bomb(name, BOMB_BYTES),
    "lying_bomb_zip": lambda content, name: _bomb(name, 1_000),
    "negative_seek_zip": lambda content, name: _end(content, _DIRECTORY_OFFSET, 0xFFFFFF00),
    "huge_directory_zip": lambda content, name: _end(content, _DIRECTORY_SIZE, 0x7FFFFFFF),
    "zip64_zip": _zip64,
    "two_members_zip": lambda content, name: _repacked(
        _text(content), f"{name}.csv", f"{name}-2.csv"
    ),
    "many_members_zip": lambda content, name: _repacked(
        "", *(f"{number}.csv" for number in range(3_000))
    ),
    "overlapping_zip": _overlapping,
    "folder_zip": lambda content, name: _repacked("", f"{name}.csv/"),
    "absolute_name_zip": lambda content, name: _repacked(_text(content), f"/{name}.csv"),
    "climbing_name_zip": lambda content, name: _repacked(_text(content), f"../{name}.csv"),
    "nul_zip": lambda content, name: archive_zip(name, _text(content).replace("1", "\0")),
    "latin1_zip": lambda content, name: _repacked(
        _text(content).replace("1", "\xe9").encode("latin-1"), f"{name}.csv"
    ),
    "html_zip": lambda content, name: archive_zip(name, "<html>Be right back</html>"),
    "long_line_zip": lambda content, name: archive_zip(name, "1" * len(_text(content))),
    "many_rows_zip": lambda content, name: archive_zip(name, _text(content) * 200),
    "infinite_taker_zip": lambda content, name: archive_zip(name, _every_row(content, 9, "inf")),
}
CHECKSUMS: dict[str, Spoil] = {
    "bad_checksum": lambda content, name: checksum_line(name, _flipped(content, name)).encode(),
    "other_name_checksum": lambda content, name: checksum_line("ADAUSDT-5m-2020", content).encode(),
    "two_line_checksum": lambda content, name: checksum_line(name, content).encode() * 2,
    "html_checksum": lambda content, name: b"<html>Be right back</html>",
    "binary_checksum": lambda content, name: bytes(range(256)),
    "long_checksum": lambda content, name: checksum_line(name, content).encode() + b" " * 9_000,
}
# Bodies of REST that are no answer; the gzip bomb needs a header, too.
REST_TEXTS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "bad_json": lambda: "[[17575230000",
    "deep_json": lambda: "[" * 90_000 + "]" * 90_000,
    "many_rows": lambda: "[" + ",".join(["[1]"] * 1_000_000) + "]",
    "long_number": lambda: "[[" + "9" * 90_000 + "]]",
}
# What a 429 says in Retry-After instead of how long to wait; None: it has no such header.
RETRY_AFTERS: dict[str, str | None] = {
    "429_now": "0",
    "429_past": "-5",
    "429_never": "9" * 30,
    "429_text": "soon",
    "429_silent": None,
}
