"""The desk's own style, script and plotly's: read once, served with a tag, kept by browsers."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import Request
from fastapi.responses import Response

# What may be asked for; nothing else of a request's path is looked at.
_TYPES = {
    "desk.css": "text/css; charset=utf-8",
    "desk.js": "text/javascript; charset=utf-8",
    "plotly.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_MAP_STYLE = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent, plain and packed."""

    content: bytes
    packed: bytes
    tag: str
    kind: str


@cache
def asset(name: str) -> Asset:
    """One of the desk's files. Raises KeyError for any other name."""
    kind = _TYPES[name]
    content = _content(name)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return Asset(content, gzip.compress(content, 6, mtime=0), tag, kind)


def address(name: str) -> str:
    """Where a page finds a file: under a name that changes with it, so it is fetched once."""
    return f"/static/{name}?v={_version(asset(name))}"


def warm() -> None:
    """Read and pack every file, so that the first visitor need not wait for it."""
    for name in _TYPES:
        asset(name)


def _version(found: Asset) -> str:
    return found.tag.strip('"')[:16]


def respond(name: str, request: Request) -> Response:
    """The file, or 304 for who has it. Raises KeyError for a name that is not served."""
    found = asset(name)
    named = request.query_params.get("v") == _version(found)
    keep = "private, max-age=31536000, immutable" if named else "no-cache"
    headers = {"etag": found.tag, "cache-control": keep, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(found.packed, media_type=found.kind, headers=headers)
    return Response(found.content, media_type=found.kind, headers=headers)


def _content(name: str) -> bytes:
    if name == "plotly.js":
        from plotly.offline import get_plotlyjs

        return _without_map_styles(str(get_plotlyjs())).encode()
    return (files("cppncripto_strategy.desk") / "static" / name).read_bytes()


def _without_map_styles(script: str) -> str:
    """Plotly's script, which adds the style of maps unless an element of its id is there: one is.

    We draw no maps, and the content policy refuses styles that are text of a script.
    """
    marks = "".join(
        f'document.head.appendChild(document.createElement("meta")).id="{id}";'
        for id in dict.fromkeys(_MAP_STYLE.findall(script))
    )
    return marks + script
