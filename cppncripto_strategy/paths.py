"""Where the results of a run lie."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


def results_folder(recipe_path: Path, shipped: bool, out: Path | None) -> Path:
    """`<runs>/<recipe>/<UTC stamp>`: beside the recipe, or under ./runs for a shipped one."""
    base = out or (Path("runs") if shipped else recipe_path.parent)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = base / recipe_path.stem / stamp
    number = 1
    while folder.exists():
        number += 1
        folder = base / recipe_path.stem / f"{stamp}-{number}"
    return folder
