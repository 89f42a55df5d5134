"""What comes over HTTP, within bounds: how much, how slowly, from where.

python-binance and aiohttp read a body to its end, however long, and unpack it as far as it goes.
Here a body is counted while it arrives, and unpacked no further than its bound.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from urllib.parse import urljoin, urlsplit

import aiohttp

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.bounds import REDIRECTS, SLOWEST_BYTES_PER_S, rest_bytes

# Packings that can be undone with a bound; others are not asked for.
ENCODINGS = "gzip, deflate"
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class TooLargeError(SourceError):
    """A body is larger than its kind can honestly be."""


async def chunks(
    response: aiohttp.ClientResponse, limit: int, patience_s: float
) -> AsyncIterator[bytes]:
    """The body as it arrives, not unpacked.

    Parameters
    ----------
    limit : bytes at most.
    patience_s : seconds without a byte, and the start that a slow body has before
        `SLOWEST_BYTES_PER_S` holds.

    Raises
    ------
    TooLargeError
        When it is, or announces itself as, larger than `limit`.
    TimeoutError
        When it is too slow.
    """
    _refuse_beyond(limit, response.content_length or 0, response.url)
    began, size = time.monotonic(), 0
    while True:
        left_s = patience_s + size / SLOWEST_BYTES_PER_S - (time.monotonic() - began)
        if left_s <= 0:
            raise TimeoutError(f"only {size:,} bytes came in {time.monotonic() - began:.0f} s")
        async with asyncio.timeout(min(left_s, patience_s)):
            chunk = await response.content.readany()
        if not chunk:
            return
        size += len(chunk)
        _refuse_beyond(limit, size, response.url)
        yield chunk


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """A body without its Content-Encoding.

    Raises
    ------
    TooLargeError
        When it unpacks to more than `limit` bytes.
    ValueError
        When it is packed in another way than asked for, or damaged.
    """
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "deflate"):
        raise ValueError(f"its Content-Encoding is {encoding[:40]!r}, expected {ENCODINGS}")
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        text = unpacker.decompress(body, limit + 1)
    except zlib.error as cause:
        raise ValueError(f"its {encoding} does not unpack: {cause}") from cause
    if len(text) > limit:
        raise TooLargeError(f"an answer unpacks to more than {limit:,} bytes")
    if not unpacker.eof:
        raise ValueError(f"its {encoding} is cut short")
    return text


def redirected(response: aiohttp.ClientResponse, hops: int) -> str | None:
    """Where a response sends its reader; None when it sends nowhere.

    Raises
    ------
    SourceError
        When that is another host, or one redirect too many.
    """
    target = response.headers.get("Location")
    if response.status not in (301, 302, 303, 307, 308) or target is None:
        return None
    asked = str(response.url)
    url = urljoin(asked, target)
    if urlsplit(url)[:2] != urlsplit(asked)[:2] or hops >= REDIRECTS:
        raise SourceError(
            f"{asked} sends its reader to {url[:200]}: another host, or one redirect more than"
            f" {REDIRECTS}; it was not followed"
        )
    return url


class BoundedResponse(aiohttp.ClientResponse):
    """An answer of REST that is read no further than its end point's bound."""

    async def read(self) -> bytes:
        """The body, unpacked."""
        if self._body is None:
            try:
                self._body = await self._bounded()
            except BaseException:
                self.close()
                raise
        return self._body

    async def _bounded(self) -> bytes:
        limit, body = rest_bytes(self.url.path, self.url.query_string), bytearray()
        _refuse_beyond(limit, self.content_length or 0, self.url)
        while chunk := await self.content.readany():
            body += chunk
            _refuse_beyond(limit, len(body), self.url)
        return unpack(bytes(body), self.headers.get("Content-Encoding", ""), limit)


def _refuse_beyond(limit: int, size: int, url: object) -> None:
    if size > limit:
        raise TooLargeError(
            f"{url} sends {size:,} bytes or more; it can honestly have {limit:,} at most"
        )
