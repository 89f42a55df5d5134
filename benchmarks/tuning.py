"""What pruning and a model of the candidates are worth: a search against an unpruned random one.

    python benchmarks/tuning.py                     runs/tune.toml, as many trials as it says
    python benchmarks/tuning.py --trials 12
    python benchmarks/tuning.py --null 20           the same recipe on markets without an answer
    python benchmarks/tuning.py --workers 2         trials a minute with one process and with two

Each search has an empty cache of its own. Training is counted in seconds of processor, and only
ratios of one call are worth anything. On a null market the verdict has to be "nothing found".
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from cppncripto_strategy.recipe import Recipe, load_recipe, parse_recipe
from cppncripto_strategy.spreading.spread import Spread
from cppncripto_strategy.tuning.found import Found
from cppncripto_strategy.tuning.measures import all_values
from cppncripto_strategy.tuning.search import Where, tune

RECIPE = Path(__file__).parents[1] / "runs" / "tune.toml"
ARMS = {
    "search": {},
    "random, unpruned": {"sampler": "random", "pruner": "none"},
}


def changed(recipe: Recipe, **search: object) -> Recipe:
    """The recipe with keys of [search] replaced; None keeps one."""
    values = recipe.to_plain()
    values["search"] |= {key: value for key, value in search.items() if value is not None}
    return parse_recipe(values, "benchmark")


def null(recipe: Recipe, seed: int) -> Recipe:
    """The recipe on a market in which nothing answers to anything."""
    values = recipe.to_plain()
    values["candles"]["planted"] |= {"mu": 0.0, "seed": 1000 + seed}
    return parse_recipe(values, "null")


def run(recipe: Recipe, spread: Spread, keep_sealed: bool = False) -> Found:
    """One search in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        where = Where(home, home / "tuning", spread=spread)
        return tune(recipe, where, keep_sealed=keep_sealed)


def row(name: str, found: Found) -> str:
    """A line of the table."""
    summary, best, sealed = found.summary(), found.best, found.sealed
    inner = None if best is None else best.measures["sharpe"]
    outside = None if sealed is None else all_values(sealed.chosen)["sharpe"]
    untuned = None if sealed is None else all_values(sealed.untuned)["sharpe"]
    interval = found.worth.get("sealed", {})
    return (
        f"| {name} | {found.pulse.complete} + {found.pulse.pruned} pruned"
        f" | {summary['train_s']:.0f} | {text(inner)} | {text(outside)}"
        f" [{text(interval.get('low'))}, {text(interval.get('high'))}] | {text(untuned)} |"
    )


def text(value: float | None) -> str:
    """A number, or a dash."""
    return "—" if value is None else f"{value:.2f}"


def compare(recipe: Recipe, trials: int | None, spread: Spread) -> None:
    """The table of both searches."""
    print("| | trials | training, CPU s | Sharpe, inner | Sharpe, sealed | untuned, sealed |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, search in ARMS.items():
        print(row(name, run(changed(recipe, trials=trials, **search), spread)), flush=True)


def count_finds(recipe: Recipe, trials: int | None, seeds: int, spread: Spread) -> None:
    """How often a search of a null market claims a find."""
    finds = 0
    for seed in range(seeds):
        found = run(changed(null(recipe, seed), trials=trials), spread)
        finds += bool(found.worth.get("edge"))
        print(f"seed {seed}: {found.worth.get('headline', 'nothing was chosen')}", flush=True)
    print(f"{finds} of {seeds} null markets claimed a find")


def scale(recipe: Recipe, trials: int | None, workers: int) -> None:
    """Trials a minute with one process and with several."""
    paces = []
    for count in (1, workers):
        search = changed(recipe, trials=trials, sampler="random", pruner="none")
        paces.append(run(search, Spread("processes", count), keep_sealed=True).pulse.per_minute)
        print(f"{count} processes: {paces[-1]:.2f} trials a minute", flush=True)
    print(f"ratio {paces[1] / paces[0]:.2f}")


def main() -> None:
    """Read the options and run what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--null", type=int, metavar="SEEDS")
    parser.add_argument("--workers", type=int, metavar="N")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    if options.workers:
        scale(recipe, options.trials, options.workers)
    elif options.null:
        count_finds(recipe, options.trials, options.null, Spread("none"))
    else:
        compare(recipe, options.trials, Spread("none"))


if __name__ == "__main__":
    main()
