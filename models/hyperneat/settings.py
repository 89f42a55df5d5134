"""Settings of an evolution. Torch is not imported: the command line checks them first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from cppncripto_strategy.errors import RecipeError

SearchKind = Literal["neat", "random", "map-elites"]
FitnessKind = Literal["gain", "profile"]
SEARCHES: tuple[SearchKind, ...] = get_args(SearchKind)
FITNESSES: tuple[FitnessKind, ...] = get_args(FitnessKind)


@dataclass(frozen=True, slots=True)
class NeatSettings:
    """How genomes vary and compete; probabilities are per genome or per gene and generation.

    `locality` starts every genome with connections among channels that are near each other
    (Verbancsics & Stanley 2011, the seed of HyperNEAT-LEO).
    """

    population: int = 48
    add_node: float = 0.15
    delete_node: float = 0.08
    add_link: float = 0.25
    delete_link: float = 0.15
    weight_step: float = 0.4
    bias_step: float = 0.3
    change_activation: float = 0.1
    species_distance: float = 1.6
    stagnation: int = 8
    elitism: int = 1
    survival: float = 0.3
    locality: bool = False


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """What a run is, besides its data.

    Parameters
    ----------
    generations : generations evaluated, at least 1.
    search : "random", which draws every genome anew and selects none; "neat"; or "map-elites",
        which varies the best genome of each kind (see `archive`). The two have not been shown to
        find what is worth more out of sample.
    fitness : what a genome is worth: "gain", what its embedding adds to the forecast of the coming
        day by HAR-X's terms; or "profile", what it says of the coming day's profile by itself.
    seed : of every draw.
    connection_cost : fitness taken for expressing every connection of the substrate; a genome that
        expresses a tenth of them pays a tenth.
    folds : parts of the span that the probe predicts, each from the days before it.
    neat : how genomes vary and compete.
    """

    generations: int = 15
    search: SearchKind = "random"
    fitness: FitnessKind = "gain"
    seed: int = 0
    connection_cost: float = 0.02
    folds: int = 3
    neat: NeatSettings = field(default_factory=NeatSettings)

    def __post_init__(self) -> None:
        if self.generations < 1 or self.neat.population < 4:
            raise RecipeError(
                f"evolution needs at least 1 generation of 4 genomes, found "
                f"{self.generations} of {self.neat.population}"
            )
        for name, known in (("search", SEARCHES), ("fitness", FITNESSES)):
            if getattr(self, name) not in known:
                raise RecipeError(
                    f"{name} {getattr(self, name)!r} is unknown; there are: {', '.join(known)}"
                )
        if self.connection_cost < 0 or self.folds < 1:
            raise RecipeError(
                f"connection_cost must be 0 or more and folds 1 or more, found "
                f"{self.connection_cost} and {self.folds}"
            )
