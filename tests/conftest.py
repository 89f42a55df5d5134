"""Small networks with random weights, and short planted markets, for tests of what uses them.

Random weights score as differently from candle to candle as trained ones, and cost nothing.

Where torch is not installed, tests that come to need it are skipped, and the others run.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

# Before numpy: on a busy machine its small decompositions are far slower on two threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

from cppncripto_strategy.feeds import planted
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.settings import EMBEDDING_SIZE

if TYPE_CHECKING:
    from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
    from cppncripto_strategy.models.inputs.sessions import SessionSettings, SessionTable

HOUR_MS = 3_600_000
TESTS = Path(__file__).parent

# The same examples in every run of the same code: a red test must be red again when looked at.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


# A shell's background job ignores Ctrl-C, and so would every process that a test starts and stops.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite on two processes; what somebody picked out of it on this one."""
    whole = [Path(name).resolve() for name in config.args] == [TESTS] and not config.option.keyword
    return min(2, os.cpu_count() or 1) if whole else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs POSIX where there is none."""
    if os.name != "posix":
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="needs POSIX"))


class WithoutTorch(MetaPathFinder):
    """Skips the test, or the test module, that imports torch, however indirectly."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            pytest.skip("needs torch, which is not installed", allow_module_level=True)


torch_installed = find_spec("torch") is not None
if not torch_installed:
    sys.meta_path.insert(0, WithoutTorch())


def candles_of(days: int = 24, interval: str = "1h", seed: int = 0, missing: Sequence[int] = ()):
    """Planted candles without the rows in `missing`."""
    settings = planted.PlantedSettings(days=days, interval=interval, seed=seed)
    candles = planted.generate(settings).candles
    kept = np.setdiff1d(np.arange(len(candles)), np.asarray(missing, dtype=np.int64))
    columns = {f.name: getattr(candles, f.name)[kept] for f in dataclasses.fields(candles)}
    return type(candles)(**columns)


def grid_of(candles, interval_ms: int = HOUR_MS) -> CandleGrid:
    """The grid of a span of candles."""
    return CandleGrid.from_candles(candles, interval_ms)


def bundle_of(table: SessionTable, until_ms: int, seed: int, macro: bool = True, **shape) -> Bundle:
    """A bundle of random networks, calibrated on the sessions of a table before `until_ms`."""
    import torch

    from cppncripto_strategy.models.bundle import Bundle, BundleInfo
    from cppncripto_strategy.models.inputs.sessions import SessionSet
    from cppncripto_strategy.models.learning.data import embed_set
    from cppncripto_strategy.models.macronet import build_macronet
    from cppncripto_strategy.models.micronet import MicroNet
    from cppncripto_strategy.models.settings import MicroNetSettings

    torch.manual_seed(seed)
    settings = table.settings
    known = SessionSet.between([table], 0, until_ms)
    net = None
    if macro:
        options = {"channels": 6, "stride": 6, "dilations": [1, 2]}
        net = build_macronet("tcn", len(settings.names), settings.n_statistics, options).eval()
        net.calibrate(embed_set(net, known, raw=True))
        net.spread.clamp_(min=0.1)  # a few alike days would else magnify the rounding of float32
    wanted = {"short_window": 20, "channels": 8, "hidden": 8, **shape}
    micro = MicroNet(MicroNetSettings(n_features=len(settings.names), **wanted)).eval()
    bank = embed_set(net, known)
    micro.fit_context(bank)
    info = BundleInfo(
        session=settings,
        encoder="tcn" if macro else None,
        encoder_options=net.encoder.options.to_json() if net is not None else {},
        objective="contrastive" if macro else None,
        micro=micro.settings,
        label={},
        symbols=(table.symbol,),
        trained_from_ms=table.grid.start_ms,
        trained_until_ms=until_ms,
        seed=seed,
        data_fingerprint="",
        validation={"loss": 1.0},
    )
    with torch.no_grad():
        x = known.micro_inputs(np.arange(len(known)), micro.receptive_field)
        scores = micro.probabilities(micro(x, bank))[..., 0].numpy()
    quantiles = np.quantile(scores, np.linspace(0, 1, 401)).astype(np.float64)
    return Bundle(info, net, micro, quantiles, bank.numpy(), known.start_ms())


def timeline_of(
    grid: CandleGrid,
    settings: SessionSettings,
    sessions: Sequence[int] = (4,),
    warm: bool = False,
    macro: bool = True,
    **shape,
) -> BundleTimeline:
    """Bundles that come into force with the numbered sessions of the grid.

    With `warm` later bundles keep the first one's MacroNet, as a warm start does.
    """
    from cppncripto_strategy.models.bundle import BundleTimeline
    from cppncripto_strategy.models.inputs.sessions import build_sessions

    table = build_sessions("X", grid, settings)
    starts = [int(table.start_ms[0]) + n * DAY_MS for n in sessions]
    bundles = [bundle_of(table, ms, seed, macro, **shape) for seed, ms in enumerate(starts)]
    if warm:
        bundles = [dataclasses.replace(bundle, macro=bundles[0].macro) for bundle in bundles]
    return BundleTimeline(tuple(bundles))


class Toy:
    """Builders of toy candles, grids, bundles and timelines; see the functions above."""

    candles = staticmethod(candles_of)
    grid = staticmethod(grid_of)
    bundle = staticmethod(bundle_of)
    timeline = staticmethod(timeline_of)
    embedding_size = EMBEDDING_SIZE

    @property
    def settings(self) -> SessionSettings:
        """Two days of macro window on hourly candles: 14 days of warm-up, in 336 rows."""
        from cppncripto_strategy.models.inputs.sessions import SessionSettings

        return SessionSettings(interval_ms=HOUR_MS, long_window=48)


@pytest.fixture(scope="session")
def toy() -> Toy:
    """Builders of toy candles, grids, bundles and timelines."""
    if torch_installed:
        import torch

        torch.set_num_threads(1)
    return Toy()
