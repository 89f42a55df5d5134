"""What an evolution leaves: its finished run, its champion, and how that does elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from cppncripto_strategy.models.hyperneat.evolution import Evolution
from cppncripto_strategy.models.hyperneat.front import Candidate


@dataclass(frozen=True, slots=True)
class Transfer:
    """How the champion does on another substrate, and the mean of random CPPNs there.

    Parameters
    ----------
    where : the substrate in words. evolved, random : probes (out-of-sample R2).
    connections, weights : what the champion expresses there, of how many.
    """

    where: str
    evolved: float
    random: float
    connections: int
    weights: int


@dataclass(frozen=True, slots=True, eq=False)
class Evolved:
    """What an evolution left.

    Parameters
    ----------
    run : the finished run.
    champion : the genomes chosen, the fittest first; one, or elites that share out the vector.
    days : sessions the probe judged on. from_ms, until_ms : the span it saw.
    genomes, seconds : evaluated by this call, and its wall time; 0 where it was finished already.
    transfers : the champion on other substrates.
    """

    run: Evolution
    champion: tuple[Candidate, ...]
    days: int
    from_ms: int
    until_ms: int
    genomes: int
    seconds: float
    transfers: tuple[Transfer, ...]

    @property
    def index(self) -> int | None:
        """The champion's place on the front; None where it is not on it, or is several."""
        alone = len(self.champion) == 1 and self.champion[0] in self.run.front
        return self.run.front.index(self.champion[0]) if alone else None
