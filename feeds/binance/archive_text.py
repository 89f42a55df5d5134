"""The candles inside an archive's zip, opened within bounds.

A zip says about itself whatever its writer likes: sizes, offsets, names, methods, how many members.
Nothing of that is believed further than `bounds` allows, and no more is unpacked or held than an
honest file needs: a small file in one piece, a month of seconds 4 MiB at a time. Exceptions leave
as the libraries raise them; whoever calls turns them into damage.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from importlib import import_module
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv

from cppncripto_strategy.errors import CandleError, SourceError
from cppncripto_strategy.feeds.binance.bounds import DIRECTORY_BYTES, ArchiveBounds
from cppncripto_strategy.feeds.binance.klines import ROW_FIELDS
from cppncripto_strategy.feeds.candles import COLUMNS, Candles
from cppncripto_strategy.feeds.clock import integers_to_ms


def _libdeflate() -> Any:
    try:
        return import_module("deflate")
    except ImportError:  # no wheel for this machine: zlib does it too
        return None


deflate = _libdeflate()

# Up to so much text a file is unpacked at once, by libdeflate where it is there; beyond, in pieces.
WHOLE_BYTES = 16 << 20
_PIECE_BYTES = 4 << 20
_ENCRYPTED = 0x1
_NAMES_SHOWN = 5
_WANTED = [name for name in ROW_FIELDS if name in COLUMNS]
_TYPES = {name: pa.int64() if name == "open_time" else pa.float64() for name in _WANTED}


class _Narrow:
    """A file that is read a little at a time: a zip's directory cannot be a gigabyte.

    Attributes
    ----------
    most : bytes that one read may give.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.most = file, DIRECTORY_BYTES
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, all that are left by default, where `most` allows it."""
        content = self._file.read(min(size, self.most + 1) if size >= 0 else self.most + 1)
        if len(content) > self.most:
            raise zipfile.BadZipFile(f"its directory takes more than {self.most:,} bytes")
        return content


def zip_candles(file: IO[bytes], name: str, bounds: ArchiveBounds) -> Candles:
    """The candles of `name`.csv, the only member of a zip; not judged.

    Raises
    ------
    SourceError
        When the zip holds anything else, more than `bounds` allows, or no such rows.
    Exception
        Whatever zipfile, zlib and libdeflate make of a damaged file.
    """
    texts = read_text(file, name, bounds)
    first = parse_csv(next(texts, b""), name)
    second = next(texts, None)
    if second is None:
        return _few(first, len(first), bounds, name)
    columns = {field: np.empty(bounds.rows, values.dtype) for field, values in first.columns()}
    count, part = 0, first
    while True:
        _few(part, count + len(part), bounds, name)
        for field, values in part.columns():
            columns[field][count : count + len(part)] = values
        count += len(part)
        if second is None:
            return Candles(**cast(Any, {field: v[:count] for field, v in columns.items()}))
        part = parse_csv(second, name, header=False)
        second = next(texts, None)


def _few(part: Candles, count: int, bounds: ArchiveBounds, name: str) -> Candles:
    if count > bounds.rows:
        raise SourceError(f"{name}.csv holds more rows than its period has candles")
    return part


def read_text(file: IO[bytes], name: str, bounds: ArchiveBounds) -> Iterator[bytes | bytearray]:
    """The text of `name`.csv in pieces of whole lines; see `zip_candles`."""
    narrow = _Narrow(file)
    with zipfile.ZipFile(cast(IO[bytes], narrow)) as packed:
        narrow.most = _PIECE_BYTES
        member = _only_member(packed, name, bounds)
        quick = member.compress_type == zipfile.ZIP_DEFLATED and deflate is not None
        if quick and member.file_size <= WHOLE_BYTES:
            yield _inflate(file, member)
            return
        rest, size = b"", 0
        with packed.open(member) as text:
            while piece := text.read(_PIECE_BYTES):
                size += len(piece)
                if size > bounds.text_bytes:
                    raise SourceError(_too_long(name, size, bounds))
                whole, line_end, begun = piece.rpartition(b"\n")
                longest = len(begun) if line_end else len(rest) + len(begun)
                if longest > _PIECE_BYTES:
                    raise SourceError(f"{name}.csv holds a line of {longest:,} bytes or more")
                if line_end:
                    yield rest + whole + line_end
                    rest = begun
                else:
                    rest += begun
        if rest:
            yield rest


def _only_member(packed: zipfile.ZipFile, name: str, bounds: ArchiveBounds) -> zipfile.ZipInfo:
    """The one member that an archive has.

    Raises
    ------
    SourceError
        When there are others, or it claims what an honest one cannot be.
    """
    members = packed.infolist()
    if [member.filename for member in members] != [f"{name}.csv"]:
        inside = ", ".join(repr(member.filename[:80]) for member in members[:_NAMES_SHOWN])
        more = f" and {len(members) - _NAMES_SHOWN:,} more" if len(members) > _NAMES_SHOWN else ""
        raise SourceError(f"{name}.zip holds {inside or 'nothing'}{more}, expected only {name}.csv")
    [member] = members
    if member.flag_bits & _ENCRYPTED:
        raise SourceError(f"{name}.zip is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SourceError(
            f"{name}.zip is packed by method {member.compress_type}, expected deflate (8) or none"
        )
    if member.file_size > bounds.text_bytes:
        raise SourceError(_too_long(name, member.file_size, bounds))
    if member.compress_size > bounds.zip_bytes or member.header_offset < 0:
        raise SourceError(f"{name}.zip says that its member lies outside of it")
    return member


def _too_long(name: str, size: int, bounds: ArchiveBounds) -> str:
    return (
        f"{name}.zip unpacks to {size:,} bytes or more; candles of its period take"
        f" {bounds.text_bytes:,} at most"
    )


def _inflate(file: IO[bytes], member: zipfile.ZipInfo) -> bytearray:
    """A deflated member through libdeflate, three times as fast as zlib."""
    file.seek(member.header_offset)
    names, extra = struct.unpack_from("<HH", file.read(30), 26)
    file.seek(member.header_offset + 30 + names + extra)
    packed = file.read(member.compress_size)
    text: bytearray = deflate.deflate_decompress(packed, member.file_size)
    if len(text) != member.file_size or deflate.crc32(text) != member.CRC:
        raise zipfile.BadZipFile("bad CRC-32")
    return text


def parse_csv(text: bytes | bytearray, origin: str, *, header: bool = True) -> Candles:
    """Candles of an archive's text, with or without a header row, in s, ms, us or ns.

    1577836800000,7195.24000000,7196.25000000,7183.14000000,7186.68000000,51.64281200,
    1577836859999,371233.51835535,493,19.59823000,140888.41428273,0

    Raises
    ------
    SourceError
        When it is not such rows.
    """
    if not text or text.isspace():
        return Candles.empty()
    has_header = header and text[:1].isalpha()
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(text),
            read_options=pyarrow.csv.ReadOptions(
                column_names=list(ROW_FIELDS),
                skip_rows=int(has_header),
                block_size=1 << 20,
                use_threads=False,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=_TYPES,
                include_columns=_WANTED,
                null_values=[],
                check_utf8=False,
            ),
            parse_options=pyarrow.csv.ParseOptions(quote_char=False),
        )
        open_time = integers_to_ms(table["open_time"].to_numpy(), origin)
    except (pa.ArrowException, CandleError) as cause:
        raise SourceError(f"{origin}.csv is not an archive of candles: {cause}") from cause
    columns = {name: table[name].to_numpy() for name in _WANTED[1:]}
    return Candles.from_columns(open_time=open_time, **columns)
