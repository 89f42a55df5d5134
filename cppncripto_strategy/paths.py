"""Where things lie: one rule, which every command follows.

A recipe's home is a folder named for the recipe's file and beside it. A recipe that ships with the
package behaves as if its file lay in `runs/` of the current folder. `run --out DIR` puts the home
into DIR.

    <home>/<UTC stamp>/     results of one run; of one that was refused or failed, only log.jsonl,
                            whose last line says why
    <home>/<UTC stamp>/bundles/  its networks, in with-macro/ and without-macro/
    <home>/trials.jsonl     every run as a trial
    <home>/bundles/         finished bundles, shared by `run`, `experiment` and `paper`
    <home>/experiments/     pages, cells and trials of `experiment`
    <home>/cpcv.html        page of `check --cpcv`, and cpcv.json
    <home>/evolution/       checkpoint, champion and page of `evolve`
    <home>/tuning/          study, trials and page of `tune`
    <home>/openings.jsonl   every opening of sealed days by `tune`

What outlives a recipe's file lies in the current folder:

    candles/                the candle store
    embeddings.parquet      written by `embed`, read by `days`
    paper/<session>/        a paper session, named for the recipe unless it has its own name

Shared bundles are found by a key over all they follow from, so sharing their folder is always safe.
Whatever takes bundles takes a run's folder, its `bundles/`, one arm in it, or one bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.foreign import writing

CANDLES = Path("candles")
EMBEDDINGS = Path("embeddings.parquet")
SESSIONS = Path("paper")
SHIPPED_BASE = Path("runs")


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe's file, and whether it ships with the package."""

    path: Path
    shipped: bool

    @classmethod
    def find(cls, text: str) -> RecipeFile:
        """The file of this path or, where there is none, the shipped recipe of this name.

        Raises
        ------
        RecipeError
            When there is neither; the message lists the shipped recipes and the nearest name.
        """
        path, shipped = Path(text), shipped_recipes()
        if path.is_file():
            return cls(path, False)
        if text in shipped:
            return cls(shipped[text], True)
        close = get_close_matches(path.stem, shipped, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise RecipeError(
            f"no recipe {text!r}: there is no such file, and none of this name is shipped{hint};"
            f" shipped are: {', '.join(shipped)}"
        )


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("cppncripto_strategy.runs")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


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

    @property
    def cross_validation(self) -> Path:
        """Page of the combinatorial cross-validation."""
        return self.path / "cpcv.html"

    @property
    def tuning(self) -> Path:
        """Folder of the search over settings."""
        return self.path / "tuning"

    def claim_run(self) -> Path:
        """A new, empty results folder, named for this second (UTC) and nobody else's.

        Making the folder is the claim: of two runs that begin in one second, in whatever process,
        the later one gets `<stamp>-2`.

        Raises
        ------
        RecipeError
            When it cannot be made: a file is in the way, say.
        """
        with writing(self.path, RecipeError):
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
