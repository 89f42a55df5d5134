"""What a genome is worth: what its embedding says of coming days, less the price of connections.

Either what it adds to HAR-X's terms (`judging.gains`), or a ridge probe of the coming day's profile
(`judging.probes`). Both are judged on later days than they learned from, all of them before
`until_ms`. The number is called the probe, whichever it is.

Source: Clune, Mouret & Lipson 2013 (connection cost).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.models.hyperneat.decoding import Kernels, decode
from cppncripto_strategy.models.hyperneat.encoder import (
    average_rows,
    is_expressed,
    pooled,
    run_layers,
    worn,
)
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.judged import judged_days
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, FitnessKind
from cppncripto_strategy.models.hyperneat.sight import sight_of
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.judging.gains import Judged, thinned, walk_forward_gain
from cppncripto_strategy.models.judging.probes import profile_targets, walk_forward_r2

# Fitness of a genome that expresses next to nothing: below anything a probe can score.
SILENT = -1.0
# Windows gathered or embedded at a time: 64 x 30 days of candles are 20 MB.
_BATCH = 64
# Rows of all windows that a genome is judged on: beyond, days are left out evenly. It bounds memory
# (9 MB of nine features) and the seconds a genome takes.
MOST_ROWS = 250_000
# A probe is rounded to this many decimals: machines that differ in the last bit of a convolution
# must not steer a run apart.
_DECIMALS = 6


@dataclass(frozen=True, slots=True, eq=False)
class ProbeData:
    """The days a genome is judged on.

    Parameters
    ----------
    rows : float32 (N, R, F), scaled macro windows averaged over the substrate's stride.
    targets : float64 (N, K), what is to be predicted of each session; finite.
    day_ms : int64 (N,), 00:00 UTC of each session.
    judged : terms, weights and symbols of the same rows, where a gain over the terms is the
        fitness; None where the R2 of the targets is.
    """

    rows: NDArray[np.float32]
    targets: FloatArray
    day_ms: IntArray
    judged: Judged | None = None

    @classmethod
    def of_sessions(
        cls,
        sessions: SessionSet,
        until_ms: int,
        stride: int,
        fitness: FitnessKind = "profile",
    ) -> ProbeData:
        """Windows and outcomes of the sessions that are over by `until_ms`.

        Raises
        ------
        TrainingError
            When no session has a whole next day by then, or, for a gain, the terms.
        """
        if fitness == "gain":
            judged, known = judged_days(sessions, until_ms)
            kept = _thinned(sessions, judged.symbol, judged.day_ms, stride)
            judged = judged.rows(kept)
            rows = _rows_of(sessions, known[kept], stride)
            return cls(rows, judged.targets, judged.day_ms, judged)
        targets = profile_targets(sessions, until_ms)
        known = np.flatnonzero(np.isfinite(targets).all(axis=1))
        if not len(known):
            raise TrainingError(
                "no session of the span has a complete next day: give the evolution more days"
            )
        known = known[
            _thinned(sessions, sessions.members[known, 0], sessions.start_ms()[known], stride)
        ]
        return cls(_rows_of(sessions, known, stride), targets[known], sessions.start_ms()[known])

    def __len__(self) -> int:
        return len(self.day_ms)

    def fingerprint(self) -> str:
        """SHA-256 over all arrays: a checkpoint resumes on the very same data."""
        digest = hashlib.sha256()
        judged = self.judged
        more = () if judged is None else (judged.anchor, judged.weights, judged.symbol)
        for array in (self.rows, self.targets, self.day_ms, *more):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def probe(self, embedding: FloatArray, folds: int) -> float:
        """What an embedding (N, C) of the rows is worth, before the price of connections."""
        if self.judged is not None:
            return walk_forward_gain(embedding, self.judged, folds)
        return walk_forward_r2(embedding, self.targets, self.day_ms, folds)


def _thinned(sessions: SessionSet, symbol: IntArray, day_ms: IntArray, stride: int) -> IntArray:
    """Which sessions to keep, so that their windows have at most `MOST_ROWS` rows together."""
    settings = sessions.tables[0].settings
    window = max(1, settings.long_window // settings.pool // stride)
    return thinned(symbol, day_ms, max(1, MOST_ROWS // window))


def _rows_of(sessions: SessionSet, chosen: IntArray, stride: int) -> NDArray[np.float32]:
    """Windows of some sessions averaged into rows, float32 (N, R, F)."""
    parts = [
        average_rows(sessions.gather(chosen[i : i + _BATCH]), stride).numpy()
        for i in range(0, len(chosen), _BATCH)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Score:
    """What a genome is worth, and what its kernels see.

    Parameters
    ----------
    probe : out-of-sample R2, or gain. connections : expressed.
    fitness : the probe less the price of the connections.
    reach_h, period_h : see `sight.Sight`, hours.
    """

    probe: float
    connections: int
    fitness: float
    reach_h: float = 0.0
    period_h: float = 0.0


@torch.no_grad()
def embed_rows(kernels: Kernels, substrate: Substrate, rows: NDArray[np.float32]) -> FloatArray:
    """Pooled embeddings, float64 (N, width), of averaged rows (N, R, F)."""
    # Copied because an array that joblib mapped from disk is read-only, which torch warns about.
    whole = torch.from_numpy(np.array(rows))  # (N, R, F)
    *layers, last = worn(kernels, substrate)
    # The last layer is the widest, and a filter without connections answers 0 to everything.
    adds = last.layer.inputs == last.layer.outputs
    live = torch.ones(substrate.width, dtype=torch.bool) if adds else last.mask.any(dim=(1, 2))
    last = last.only(live)
    embedding = np.zeros((len(whole), substrate.width))
    for first in range(0, len(whole), _BATCH):
        z = run_layers((*layers, last), whole[first : first + _BATCH].transpose(1, 2))  # (B, C, R)
        places = np.flatnonzero(live.numpy())
        half = int(live[: substrate.width // 2].sum())
        embedding[first : first + _BATCH, places] = pooled(
            z.transpose(1, 2), substrate.half_life, half
        ).numpy()
    return embedding


def evaluate(
    genome: Genome, substrate: Substrate, data: ProbeData, settings: EvolutionSettings
) -> Score:
    """Paint, embed, probe. A genome that expresses too little is `SILENT` and not embedded."""
    kernels = decode(genome, substrate)
    if not is_expressed(kernels, substrate):
        return Score(SILENT, kernels.connections, SILENT)
    embedding = embed_rows(kernels, substrate, data.rows)
    probe = round(data.probe(embedding, settings.folds), _DECIMALS)
    price = settings.connection_cost * kernels.connections / substrate.weights
    sight = sight_of(kernels, substrate)
    seen = sight.reach_h, sight.period_h
    return Score(probe, kernels.connections, probe - price, *seen)
