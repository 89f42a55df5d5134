"""Embeddings kept on disk, by model and data: a session restarted the same day does not compute
them again.

One small file per embedding, named for the bundle's hash and a SHA-256 over exactly what MacroNet
read. A file holds the float32 numbers and their own SHA-256; one that does not match is computed
again. There is no other state, and deleting the folder costs nothing but time.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.atomic import write_bytes

log = logging.getLogger(__name__)

DIGEST_BYTES = 32


class EmbeddingCache:
    """A folder of embeddings.

    Parameters
    ----------
    folder : made when the first embedding is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, model_hash: str, *read: NDArray[np.float32]) -> Path:
        """File of the embedding of these arrays under this model."""
        digest = hashlib.sha256()
        for part in read:
            digest.update(np.ascontiguousarray(part).tobytes())
        return self.folder / f"{model_hash}-{digest.hexdigest()[:32]}.f32"

    def get(self, path: Path) -> NDArray[np.float32] | None:
        """The embedding (E,), or None when it is absent or damaged."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        numbers, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
        if hashlib.sha256(numbers).digest() != digest:
            log.warning("%s is damaged: the embedding is computed again", path)
            return None
        return np.frombuffer(numbers, dtype=np.float32).copy()

    def put(self, path: Path, embedding: NDArray[np.float32]) -> None:
        """Keep an embedding (E,), atomically. A full disk costs the copy, not the session."""
        numbers = np.ascontiguousarray(embedding, dtype=np.float32).tobytes()
        try:
            write_bytes(path, numbers + hashlib.sha256(numbers).digest())
        except OSError as error:
            log.warning("the embedding could not be kept in %s: %s", path, error)
