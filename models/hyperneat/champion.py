"""champion.json: the genome that an evolution chose, as recipes name it.

Left out: writing one (`evolution.champion_json`). Torch is not imported: recipes are checked with
this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.foreign import read_object, reading
from cppncripto_strategy.models.hyperneat.genome import Genome


def read_champion(path: Path) -> dict[str, Any]:
    """The document of a champion.json: `genome`, and `substrate` where it was evolved on one.

    `bank` holds the other genomes, where the champion is several that share out the vector.

    A file that is a bare genome is read as a champion without a substrate.

    Raises
    ------
    RecipeError
        When there is no such file or it holds no genome.
    """
    with reading(path, "genome", RecipeError, "`cppn-bt evolve` writes champion.json"):
        document = read_object(path)
        champion: dict[str, Any] = document if "genome" in document else {"genome": document}
        for genome in (champion["genome"], *champion.get("bank", ())):
            Genome.from_json(genome)
    return champion
