"""Where things lie: one rule, which every command follows.

A recipe's home is a folder named for the recipe's file and beside it. A recipe that ships with the
package behaves as if its file lay in `runs/` of the current folder. `run --out DIR` puts the home
into DIR.

    <home>/<UTC stamp>/     results of one run
    <home>/trials.jsonl     every run as a trial
    <home>/bundles/         finished bundles, shared by `run`, `experiment` and `paper`
    <home>/experiments/     pages, cells and trials of `experiment`
    <home>/evolution/       checkpoint, champion and page of `evolve`

What outlives a recipe's file lies in the current folder:

    candles/                the candle store
    embeddings.parquet      written by `embed`, read by `days`
    paper/<session>/        a paper session, named for the recipe unless it has its own name

Bundles are found by a key over all they follow from, so sharing their folder is always safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

CANDLES = Path("candles")
EMBEDDINGS = Path("embeddings.parquet")
SESSIONS = Path("paper")
SHIPPED_BASE = Path("runs")


@dataclass(frozen=True, slots=True)
class RecipeHome:
    """The folder that holds everything made from one recipe.

    Parameters
    ----------
    path : the folder itself; made by whoever first writes into it.
    """

    path: Path

    @classmethod
    def of(cls, recipe_file: Path, shipped: bool, out: Path | None = None) -> RecipeHome:
        """Home of a recipe's file; `out` is what `run --out` was given."""
        base = out or (SHIPPED_BASE if shipped else recipe_file.parent)
        return cls(base / recipe_file.stem)

    @property
    def bundles(self) -> Path:
        """Folder of finished bundles."""
        return self.path / "bundles"

    @property
    def experiments(self) -> Path:
        """Folder of the experiments' pages and cells."""
        return self.path / "experiments"

    @property
    def evolution(self) -> Path:
        """Folder of the evolution."""
        return self.path / "evolution"

    def claim_run(self) -> Path:
        """A new, empty results folder, named for this second (UTC) and nobody else's.

        Making the folder is the claim: of two runs that begin in one second, in whatever process,
        the later one gets `<stamp>-2`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folder, number = self.path / stamp, 1
        while not _claimed(folder):
            number += 1
            folder = self.path / f"{stamp}-{number}"
        return folder


def _claimed(folder: Path) -> bool:
    """Make the folder; whether this call made it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
