"""How genomes are proposed, one kind of search per file: NEAT, random, MAP-Elites."""

from __future__ import annotations

from cppncripto_strategy.models.hyperneat.searches._base import Search
from cppncripto_strategy.models.hyperneat.searches.elites import EliteSearch
from cppncripto_strategy.models.hyperneat.searches.neat import NeatSearch
from cppncripto_strategy.models.hyperneat.searches.random_draws import RandomSearch
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, SearchKind
from cppncripto_strategy.models.hyperneat.substrate import Substrate

KINDS: dict[SearchKind, type[Search]] = {
    "neat": NeatSearch,
    "random": RandomSearch,
    "map-elites": EliteSearch,
}


def search_of(settings: EvolutionSettings, substrate: Substrate) -> Search:
    """The search that the settings name, before its first generation."""
    return KINDS[settings.search](settings, substrate)


__all__ = ["KINDS", "EliteSearch", "NeatSearch", "RandomSearch", "Search", "search_of"]
