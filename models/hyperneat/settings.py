"""Settings of an evolution. Torch is not imported: the command line checks them first."""

from __future__ import annotations

from dataclasses import dataclass, field

from cppncripto_strategy.errors import RecipeError


@dataclass(frozen=True, slots=True)
class NeatSettings:
    """How genomes vary and compete; probabilities are per genome or per gene and generation."""

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


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """What a run is, besides its data.

    Parameters
    ----------
    generations : generations evaluated, at least 1.
    seed : of every draw.
    connection_cost : fitness taken for expressing every connection of the substrate; a genome that
        expresses a tenth of them pays a tenth.
    folds : parts of the span that the probe predicts, each from the days before it.
    neat : how genomes vary and compete.
    """

    generations: int = 15
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
        if self.connection_cost < 0 or self.folds < 1:
            raise RecipeError(
                f"connection_cost must be 0 or more and folds 1 or more, found "
                f"{self.connection_cost} and {self.folds}"
            )
