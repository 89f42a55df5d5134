"""Is this machine ready? Versions, cores, memory, disk, links, the exchange's addresses, its clock.

Each check says what it found and, where something is wrong, what to do. A fault keeps some command
from working; a note costs comfort. Nothing is changed, and nothing is asked longer than a timeout.
Left out: whether the candles at hand are whole (`cppn-bt data verify`).
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Literal

import aiohttp
from packaging.requirements import Requirement

from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources, is_loopback
from cppncripto_strategy.feeds.binance.frames import combined_path
from cppncripto_strategy.feeds.binance.rest import RestClient
from cppncripto_strategy.feeds.live.stream_socket import StreamSocket

PACKAGE = "cppncripto-strategy"
LINKED = ("feeds", "indicators", "models", "runs")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
TIMEOUT_S = 5.0
CORES, MEMORY_GB = 2, 2.0
DISK_GB, DISK_FAULT_GB = 5.0, 0.5
# A clock that is off by more names folders and reports wrongly, and certificates fail.
SKEW_NOTE_S, SKEW_FAULT_S = 1.0, 60.0
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Parameters
    ----------
    check : its name. state : "ok", "note" or "fault".
    found : in words, with numbers. advice : what to do; empty where nothing is wrong.
    """

    check: str
    state: Literal["ok", "note", "fault"]
    found: str
    advice: str = ""


def local_findings(folder: Path) -> Iterator[Finding]:
    """Everything that needs no network.

    Parameters
    ----------
    folder : where results would go: its disk is measured.
    """
    yield _python()
    yield from _packages()
    yield _cores()
    yield _memory()
    yield _disk(folder)
    yield _links()
    yield _browser()


def _python() -> Finding:
    allowed = Requirement(f"python{distribution(PACKAGE).metadata['Requires-Python']}").specifier
    found = platform.python_version()
    if allowed.contains(found, prereleases=True):
        return Finding("Python", "ok", found)
    return Finding("Python", "fault", found, f"use a Python that is {allowed}: make a new venv")


def _packages() -> Iterator[Finding]:
    """The dependencies, one finding for all where they are well; then each extra that is there."""
    wrong, count = [], 0
    extras: dict[str, list[str]] = {}
    for text in requires(PACKAGE) or ():
        needed = Requirement(text)
        problem = _problem(needed)
        if needed.marker is None:
            count += 1
            wrong += [problem] if problem else []
        elif "extra" in str(needed.marker):
            extras.setdefault(str(needed.marker).split('"')[1], []).append(problem)
    advice = f"pip install --upgrade {PACKAGE}, in the environment that runs this"
    if wrong:
        yield Finding("dependencies", "fault", "; ".join(wrong), advice)
    else:
        yield Finding("dependencies", "ok", f"{count} packages, each in its range")
    ready = sorted(name for name, problems in extras.items() if not any(problems))
    yield Finding("extras", "ok", ", ".join(ready) or "none", _extras_advice(extras, ready))


def _problem(needed: Requirement) -> str:
    """Why a requirement is not met; empty where it is."""
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} is missing"
    if needed.specifier.contains(found, prereleases=True):
        return ""
    return f"{needed.name} is {found}, needed is {needed.specifier}"


def _extras_advice(extras: dict[str, list[str]], ready: list[str]) -> str:
    others = sorted(set(extras) - {*ready, "test"})
    return f"there are also: {', '.join(others)} (pip install '{PACKAGE}[NAME]')" if others else ""


def _cores() -> Finding:
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if own >= CORES:
        return Finding("cores", "ok", f"{own} for this process")
    return Finding(
        "cores", "note", f"{own}", "training and backtests take turns: expect twice as long"
    )


def _memory() -> Finding:
    try:
        bytes_free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return Finding(
            "memory", "note", "not known on this system", "watch it while the first run trains"
        )
    found = f"{bytes_free / _GB:.1f} GB free"
    if bytes_free >= MEMORY_GB * _GB:
        return Finding("memory", "ok", found)
    return Finding("memory", "note", found, "close other programs, or take fewer symbols")


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / _GB:.1f} GB free at {there}"
    advice = "a symbol's year of 5-minute candles takes about 5 MB, a run tens of MB: make room"
    if not os.access(there, os.W_OK):
        return Finding("disk", "fault", f"{there} is not writable", "go to a folder of your own")
    if free < DISK_FAULT_GB * _GB:
        return Finding("disk", "fault", found, advice)
    return Finding("disk", "ok" if free >= DISK_GB * _GB else "note", found,
                   "" if free >= DISK_GB * _GB else advice)  # fmt: skip


def _links() -> Finding:
    """Whether the package's linked folders can be imported, and whether links can be made here."""
    here = Path(__file__).parent
    broken = [name for name in LINKED if not (here / name).is_dir()]
    installed = [name for name in broken if _importable(name)]
    if set(broken) - set(installed):
        names = ", ".join(sorted(set(broken) - set(installed)))
        return Finding("symbolic links", "fault", f"{names} cannot be imported",
                       "install the package: pip install . (or -e .) in its folder")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        try:
            (Path(folder) / "link").symlink_to(folder, target_is_directory=True)
        except OSError:
            return Finding("symbolic links", "note", "cannot be made here",
                           "a clone works without them once it is installed")  # fmt: skip
    return Finding("symbolic links", "ok", "can be made here; the package is whole")


def _importable(name: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(f"cppncripto_strategy.{name}") is not None
    except ImportError:
        return False


def _browser() -> Finding:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found:
        return Finding("browser", "ok", found)
    advice = "open reports in any browser; only pictures of pages in tests need it"
    return Finding("browser", "note", "no chromium on the path", advice)


# The exchange ---------------------------------------------------------------------------------


def network_findings(sources: Sources, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Whether the exchange's three addresses answer, and how far our clock is off.

    Parameters
    ----------
    timeout_s : seconds one address may take; all are asked at once.
    """
    return asyncio.run(_network(sources, timeout_s))


async def _network(sources: Sources, timeout_s: float) -> list[Finding]:
    asked: dict[str, tuple[str, Callable[[], Awaitable[str]]]] = {
        "REST": (sources.rest_url, lambda: _ask_rest(sources, timeout_s, skews)),
        "archives": (sources.archive_url, lambda: _ask_archive(sources.archive_url)),
        "stream": (sources.stream_url, lambda: _ask_stream(sources.stream_url, timeout_s)),
    }
    skews: list[tuple[float, float]] = []
    tasks = [_answer(name, url, ask, timeout_s) for name, (url, ask) in asked.items()]
    found = list(await asyncio.gather(*tasks))
    return [*found, _clock(skews)]


async def _answer(
    name: str, url: str, ask: Callable[[], Awaitable[str]], timeout_s: float
) -> Finding:
    """One address's answer, or what came instead of it."""
    advice = "check the network, a proxy (HTTPS_PROXY) or a firewall; without it: cppn-bt run demo"
    try:
        async with asyncio.timeout(timeout_s):
            words = await ask()
    except TimeoutError:
        return Finding(name, "fault", f"{url} did not answer within {timeout_s:g} s", advice)
    except (CppnError, OSError, aiohttp.ClientError) as error:
        return Finding(name, "fault", f"{url}: {error}", advice)
    except Exception as error:  # whatever a websocket's handshake raises
        return Finding(name, "fault", f"{url}: {type(error).__name__}: {error}", advice)
    return Finding(name, "ok", f"{url} {words}")


async def _ask_rest(sources: Sources, timeout_s: float, skews: list[tuple[float, float]]) -> str:
    once = Retry(attempts=1, timeout_s=timeout_s)
    async with RestClient(sources, once) as rest:
        sent_s = time.time()
        server_ms = await rest.server_time_ms()
        trip_s = time.time() - sent_s
    skews.append((sent_s + trip_s / 2 - server_ms / 1e3, trip_s))
    return f"answered in {1e3 * trip_s:.0f} ms"


async def _ask_archive(url: str) -> str:
    began_s = time.monotonic()
    async with (
        aiohttp.ClientSession(trust_env=not is_loopback(url)) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        status = answer.status
    if status >= 500:
        raise OSError(f"status {status}")
    return f"answered in {1e3 * (time.monotonic() - began_s):.0f} ms"


async def _ask_stream(url: str, timeout_s: float) -> str:
    began_s = time.monotonic()
    prefix, path = combined_path(("BTCUSDT",), "1m")
    socket = StreamSocket(f"{url}/", prefix, path, timeout_s=0.2, queue_frames=16)
    try:
        await socket.connect()
        return f"connected in {1e3 * (time.monotonic() - began_s):.0f} ms"
    finally:
        await socket.end()


def _clock(skews: list[tuple[float, float]]) -> Finding:
    if not skews:
        return Finding("clock", "note", "not compared: the exchange did not answer")
    skew_s, trip_s = skews[0]
    found = f"{skew_s:+.1f} s from the exchange's, give or take {trip_s / 2:.1f} s"
    off = abs(skew_s) - trip_s / 2
    if off <= SKEW_NOTE_S:
        return Finding("clock", "ok", found)
    state: Literal["note", "fault"] = "fault" if off > SKEW_FAULT_S else "note"
    return Finding("clock", state, found, "let the system keep time: timedatectl set-ntp true")
