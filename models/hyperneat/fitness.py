"""What a genome is worth: a ridge probe on its pooled embedding, less the price of connections.

The probe (`judging.probes`) is judged on later days than it learned from, all of them before
`until_ms`.

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
from cppncripto_strategy.models.hyperneat.decoding import decode
from cppncripto_strategy.models.hyperneat.encoder import CPPNEncoder, average_rows, is_expressed
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.judging.probes import profile_targets, walk_forward_r2

# Fitness of a genome that expresses next to nothing: below anything a probe can score.
SILENT = -1.0
# Windows gathered or embedded at a time: 64 x 30 days of candles are 20 MB.
_BATCH = 64
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
    """

    rows: NDArray[np.float32]
    targets: FloatArray
    day_ms: IntArray

    @classmethod
    def of_sessions(cls, sessions: SessionSet, until_ms: int, stride: int) -> ProbeData:
        """Windows and next-day profiles of the sessions that are over by `until_ms`.

        Raises
        ------
        TrainingError
            When no session has a whole next day by then.
        """
        targets = profile_targets(sessions, until_ms)
        known = np.flatnonzero(np.isfinite(targets).all(axis=1))
        if not len(known):
            raise TrainingError(
                "no session of the span has a complete next day: give the evolution more days"
            )
        parts = [
            average_rows(sessions.gather(known[i : i + _BATCH]), stride).numpy()
            for i in range(0, len(known), _BATCH)
        ]
        return cls(np.concatenate(parts), targets[known], sessions.start_ms()[known])

    def __len__(self) -> int:
        return len(self.day_ms)

    def fingerprint(self) -> str:
        """SHA-256 over all arrays: a checkpoint resumes on the very same data."""
        digest = hashlib.sha256()
        for array in (self.rows, self.targets, self.day_ms):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Score:
    """What a genome is worth: probe (out-of-sample R2), expressed connections, fitness."""

    probe: float
    connections: int
    fitness: float


@torch.no_grad()
def embed_rows(encoder: CPPNEncoder, rows: NDArray[np.float32]) -> FloatArray:
    """Pooled embeddings, float64 (N, width), of averaged rows (N, R, F)."""
    # Copied because an array that joblib mapped from disk is read-only, which torch warns about.
    whole = torch.from_numpy(np.array(rows))  # (N, R, F)
    parts = [
        encoder.pool(encoder.rows_map(whole[first : first + _BATCH]))
        for first in range(0, len(whole), _BATCH)
    ]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)


def evaluate(
    genome: Genome, substrate: Substrate, data: ProbeData, settings: EvolutionSettings
) -> Score:
    """Paint, embed, probe. A genome that expresses too little is `SILENT` and not embedded."""
    kernels = decode(genome, substrate)
    if not is_expressed(kernels, substrate):
        return Score(SILENT, kernels.connections, SILENT)
    options = CPPNOptions(genome=genome.to_json(), substrate=substrate.to_json())
    encoder = CPPNEncoder(substrate.layers[0].inputs, substrate.width, options)
    embedding = embed_rows(encoder, data.rows)
    r2 = walk_forward_r2(embedding, data.targets, data.day_ms, settings.folds)
    probe = round(r2, _DECIMALS)
    price = settings.connection_cost * kernels.connections / substrate.weights
    return Score(probe, kernels.connections, probe - price)
