"""The candles of the notebooks: real ones where a store is there, else a planted market's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def store() -> Path | None:
    """Folder with real candles: `candles` here or one above, or CPPN_BT_REAL_MARKET's."""
    named = os.environ.get("CPPN_BT_REAL_MARKET")
    places = [Path("candles"), Path("../candles"), *([Path(named) / "candles"] if named else [])]
    return next((place for place in places if place.is_dir() and any(place.iterdir())), None)


def real_or_planted(planted: dict[str, Any], real: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(settings of a recipe, a sentence on what they read), real ones where a store is there."""
    folder = store()
    if folder is None:
        return planted, "No store of real candles here: these are a planted market's."
    return real | {"candles": {"folder": str(folder)}}, "Real candles, from the store at hand."
