"""Where work is done: this process, processes beside it, or other machines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from cppncripto_strategy.errors import RecipeError

BackendName = Literal["processes", "dask", "ray", "none"]
BACKENDS: tuple[str, ...] = get_args(BackendName)
ALGEBRA_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which numpy's libraries take one thread instead of every core."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where work is done.

    Parameters
    ----------
    backend : "processes" (joblib's loky, on this machine), "dask", "ray", or "none" (here).
    workers : processes, or calls in flight; 0 for one per core, or for all that dask or ray has.
    scheduler : address of a Dask scheduler ("tcp://host:8786") or a Ray cluster; needed by dask.
    """

    backend: BackendName = "processes"
    workers: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise RecipeError(
                f"backend {self.backend!r} is unknown; there are: {', '.join(BACKENDS)}"
            )
        if self.backend == "dask" and not self.scheduler:
            raise RecipeError(
                "backend dask needs the address of a scheduler: --scheduler tcp://..."
            )

    @property
    def here(self) -> bool:
        """Whether all of it is done on this machine."""
        return self.backend in ("processes", "none")


def cores() -> int:
    """Processor cores that this process may use."""
    ask = getattr(os, "sched_getaffinity", None)
    return len(ask(0)) if ask is not None else os.cpu_count() or 1
