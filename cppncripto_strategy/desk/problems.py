"""What cannot be read becomes a row that says why: a damaged file never takes a page down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from cppncripto_strategy.desk.listing import Entry
from cppncripto_strategy.desk.schema import Item
from cppncripto_strategy.errors import CppnError

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Item)
_LENGTH = 400


def item(entry: Entry) -> dict[str, Any]:
    """The fields that every item has."""
    return {"id": entry.id, "kind": entry.kind, "name": entry.name}


def readable(entry: Entry, model: type[T], read: Callable[[], T]) -> T:
    """What `read` gives or, where it fails in whatever way, an item with the reason."""
    try:
        return read()
    except Exception as error:
        return model(**item(entry), problem=reason(error, entry))


def reason(error: Exception, entry: Entry) -> str:
    """An exception in words; paths above the folder are left out of them."""
    text = str(error) if isinstance(error, CppnError) else f"{type(error).__name__}: {error}"
    log.debug("%s %s cannot be read: %s", entry.kind, entry.name, text)
    return text.replace(str(entry.path), entry.name or ".")[:_LENGTH]
