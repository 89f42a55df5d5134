"""What a watched session pays for its viewers, how soon they see a chart, and the desk's memory.

A loopback exchange in a process of its own serves ten planted symbols at speed; a paper session
with networks of the default shapes trades them here, beside a desk of its folder. Stretches of
rounds alternate: nobody looks, then 50 viewers keep a live page open (its events, and its numbers
and chart at most once a second each) while 200 requests a second ask the API. The ratio is of the
99th percentiles of the time from a round's last candle to its last order, with and without. The
viewers' own processor time is on this machine too, behind everything else. Where the machine is
too busy for a session at this speed, rounds are late and are not counted: give less speed.
`--minutes` instead keeps viewers looking for so long and writes the desk's memory once a minute.
`--page` also opens the page in headless Chromium, with empty and full cache. Prints one JSON line,
with the load of the machine, which tells how far to believe it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from live import names, networks, recipe, start_exchange

from cppncripto_strategy.desk.credentials import make_token, read_token
from cppncripto_strategy.feeds.binance.endpoints import Retry, Sources
from cppncripto_strategy.feeds.live.rounds import Round
from cppncripto_strategy.feeds.live.stream_settings import StreamSettings
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.create import create_session
from cppncripto_strategy.paper.networks import SessionTimeline, strategy_options
from cppncripto_strategy.paper.trader import PaperSession
from cppncripto_strategy.system import lower_priority, only_when_idle

log = logging.getLogger("desk")

SYMBOLS, DAYS = names(10), 90
VIEWERS, REQUESTS_PER_S, LOOKS_S = 50, 200, 1.0
RATIO_LIMIT, CHART_LIMIT_S, GROWTH_LIMIT = 1.1, 1.5, 0.05
MAIN_SVG, FIRST_SVG = ".chart .main-svg", ".chart svg"
FIRST_PAINT = """(() => { const look = () => {
  const first = document.querySelector(".chart svg");
  if (first && first.getBoundingClientRect().height > 50) {
    requestAnimationFrame(() => { window.firstChart = performance.now(); });
  } else { requestAnimationFrame(look); }
}; requestAnimationFrame(look); })()"""


class Desk:
    """A desk as a process, and its memory."""

    def __init__(self, folder: Path, token_file: Path, priority: str) -> None:
        self.priority = priority
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        make_token(token_file)
        self.token = read_token(token_file)
        command = [sys.executable, "-m", "cppncripto_strategy", "desk", str(folder)]
        command += ["--port", str(self.port), "--token-file", str(token_file)]
        command += ["--priority", priority]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def memory_mb(self) -> float:
        """Resident memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def processor_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def viewers(self, requests_per_s: float = REQUESTS_PER_S) -> subprocess.Popen[str]:
        """50 viewers and so many requests a second, until their input is closed."""
        command = [sys.executable, __file__, "--viewers", str(self.port)]
        command += ["--requests", str(requests_per_s), "--priority", self.priority]
        environment = {**os.environ, "DESK_TOKEN": self.token}
        return subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )


async def view(port: int, token: str, per_s: float, line: Any) -> dict[str, int]:
    """Be the viewers until a line comes; counts answers by their status."""
    counts: dict[str, int] = {}
    base, headers = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=VIEWERS + 60)
    async with aiohttp.ClientSession(base, headers=headers, connector=connector) as client:

        async def get(path: str) -> None:
            try:
                async with client.get(path) as answer:
                    await answer.read()
                    status = str(answer.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                status = type(error).__name__
            counts[status] = counts.get(status, 0) + 1

        async with client.get("/api/v1/sessions") as answer:
            id = (await answer.json())["items"][0]["id"]

        async def follow(number: int) -> None:
            symbol = SYMBOLS[number % len(SYMBOLS)]
            async with client.get(f"/sessions/{id}/live", timeout=aiohttp.ClientTimeout()) as live:
                due_s = 0.0
                async for event in live.content:
                    if event.startswith(b"data") and time.monotonic() >= due_s:
                        due_s = time.monotonic() + LOOKS_S
                        await get(f"/sessions/{id}/view?symbol={symbol}")

        async def ask() -> None:
            paths = (
                f"/api/v1/sessions/{id}", f"/api/v1/sessions/{id}/decisions?last=true&limit=50",
                f"/api/v1/sessions/{id}/equity?last=true&limit=100", "/api/v1/sessions",
                f"/api/v1/sessions/{id}/fills?limit=50", "/metrics", f"/sessions/{id}", "/",
            )  # fmt: skip
            began_s, sent, flying = time.monotonic(), 0, set[asyncio.Task[None]]()
            while True:
                due = int((time.monotonic() - began_s) * per_s)
                # What a busy machine held back is not sent all at once: it would be refused.
                sent = max(sent, due - VIEWERS)
                # Nobody sends without end to a desk that does not answer.
                while sent < due and len(flying) < VIEWERS:
                    flying.add(asyncio.create_task(get(paths[sent % len(paths)])))
                    sent += 1
                flying = {task for task in flying if not task.done()}
                await asyncio.sleep(0.02)

        tasks = [asyncio.create_task(follow(number)) for number in range(VIEWERS)]
        tasks.append(asyncio.create_task(ask()))
        print("looking", flush=True)
        await asyncio.to_thread(line.readline)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return counts


class Stretches:
    """Alternates rounds with and without viewers; lives as long as the session runs.

    Parameters
    ----------
    desk : who is looked at.
    rounds : live rounds of one stretch. stretches : of each kind.
    """

    def __init__(self, desk: Desk, rounds: int, stretches: int) -> None:
        self.desk, self.rounds, self.stretches = desk, rounds, stretches
        self.latency_s: dict[bool, list[float]] = {False: [], True: []}
        self.memory: list[float] = []
        self.counts: dict[str, int] = {}
        self.watched_s = self.desk_s = 0.0
        self._seen, self._since_s, self._since_desk_s = 0, 0.0, 0.0
        self._viewers: subprocess.Popen[str] | None = None
        self._looking, self._turning = False, False

    def before_round(self, session: PaperSession, _moment: Round) -> None:
        """Called with each round; what was timed since the last one belongs to this stretch."""
        if not session.queue.allowed:
            return
        timed = list(session.recorder.latency_s)
        fresh, self._seen = timed[self._seen :], len(timed)
        if self._turning:
            return
        self.latency_s[self._looking] += fresh
        self.memory += [self.desk.memory_mb()] * len(fresh)
        done = len(self.memory) // self.rounds
        if done >= 2 * self.stretches:
            session.stop()
        elif (done % 2 == 1) != self._looking:
            self._turning = True
            threading.Thread(target=self._turn, daemon=True).start()

    def _turn(self) -> None:
        """Viewers come, or go, beside the session; rounds of meanwhile are not counted."""
        if self._looking:
            self.end()
        else:
            self._viewers = self.desk.viewers()
            assert self._viewers.stdout is not None
            assert self._viewers.stdout.readline() == "looking\n"
            self._since_s, self._since_desk_s = time.monotonic(), self.desk.processor_s()
        log.info("%s after %d rounds", "alone" if self._looking else "viewed", len(self.memory))
        self._looking, self._turning = not self._looking, False

    def end(self) -> None:
        """Viewers that are still there go."""
        viewers, self._viewers = self._viewers, None
        if viewers is None:
            return
        self.watched_s += time.monotonic() - self._since_s
        self.desk_s += self.desk.processor_s() - self._since_desk_s
        said, _ = viewers.communicate("stop\n", timeout=60)
        for status, count in json.loads(said).items():
            self.counts[status] = self.counts.get(status, 0) + count

    def summary(self) -> dict[str, Any]:
        """Percentiles with and without viewers, what they were answered, and the desk's memory."""
        if not all(self.latency_s.values()):
            raise SystemExit("no round was fresh: nothing is measured; give less --speed")
        without, watched = (1e3 * np.array(self.latency_s[looking]) for looking in (False, True))
        p99_ms = [float(np.quantile(some, 0.99)) for some in (without, watched)]
        answered = sum(self.counts.values())
        memory = self.memory[len(self.memory) // 4 :]
        return {
            "name": "desk",
            "symbols": len(SYMBOLS),
            "rounds": [len(without), len(watched)],
            "decision_p50_ms": [float(np.median(without)), float(np.median(watched))],
            "decision_p99_ms": p99_ms,
            "ratio": p99_ms[1] / p99_ms[0],
            "median_ratio": float(np.median(watched) / np.median(without)),
            "answers_per_s": answered / self.watched_s if self.watched_s else 0.0,
            "answers": self.counts,
            "desk_processor_share": self.desk_s / self.watched_s if self.watched_s else 0.0,
            "desk_memory_mb": memory[-1],
            "desk_memory_growth": memory[-1] / memory[0] - 1,
        }


class Minutes:
    """Viewers look all the time; the desk's memory once a minute."""

    def __init__(self, desk: Desk, minutes: int, requests_per_s: float) -> None:
        self.desk, self.minutes, self.rounds = desk, minutes, 0
        self.memory: list[float] = []
        self.counts: dict[str, int] = {}
        self._since_s = time.monotonic()
        self._since_desk_s = desk.processor_s()
        self._viewers = desk.viewers(requests_per_s)

    def before_round(self, session: PaperSession, _moment: Round) -> None:
        """Called with each round."""
        self.rounds += bool(session.queue.allowed)
        passed_s = time.monotonic() - self._since_s
        if passed_s >= 60 * (len(self.memory) + 1):
            self.memory.append(self.desk.memory_mb())
            log.info("minute %d: %.0f MB", len(self.memory), self.memory[-1])
        if len(self.memory) >= self.minutes:
            session.stop()

    def end(self) -> None:
        """Viewers go."""
        said, _ = self._viewers.communicate("stop\n", timeout=60)
        self.counts = json.loads(said.splitlines()[-1])

    def summary(self) -> dict[str, Any]:
        """Memory by the minute, and what the viewers were answered."""
        passed_s = time.monotonic() - self._since_s
        quarter = self.memory[len(self.memory) // 4]
        return {
            "name": "desk_memory",
            "symbols": len(SYMBOLS),
            "rounds": self.rounds,
            "answers_per_s": sum(self.counts.values()) / passed_s,
            "answers": self.counts,
            "desk_processor_share": (self.desk.processor_s() - self._since_desk_s) / passed_s,
            "memory_mb": [round(size) for size in self.memory],
            "desk_memory_growth": self.memory[-1] / quarter - 1,
        }


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the session through its stretches, or its minutes."""
    speed = arguments.speed
    settings, timeline = recipe(SYMBOLS), networks()
    log.info("networks are ready")
    process, addresses = start_exchange(SYMBOLS, speed, folder, DAYS)
    sources = Sources(addresses["archive_url"], addresses["rest_url"], addresses["stream_url"])
    retry = Retry(attempts=6, base_s=0.05, cap_s=1.0, timeout_s=5.0)
    connection = Connection(sources, StreamSettings.for_speed(speed), retry)
    path = folder / "paper" / "desk"
    desk = None
    try:
        with create_session(path, settings, timeline, connection) as session:
            desk = Desk(folder / "paper", folder / "desk-token", arguments.priority)
            stretch: Stretches | Minutes = Stretches(desk, arguments.rounds, arguments.stretches)
            if arguments.minutes:
                stretch = Minutes(desk, arguments.minutes, arguments.requests)
            paper = PaperSession(
                session,
                strategy_options(settings, SessionTimeline.of_session(path)),
                connection,
                before_round=lambda moment: stretch.before_round(paper, moment),
            )
            load = os.getloadavg()[0]
            try:
                paper.run()
            finally:
                stretch.end()
        line = stretch.summary()
        line["load"] = load
        if arguments.page:
            line |= first_chart(desk)
    finally:
        process.kill()
        process.wait()
        if desk is not None:
            desk.process.kill()
            desk.process.wait()
    return line


def first_chart(desk: Desk, times: int = 3) -> dict[str, Any]:
    """Medians of the milliseconds to the first picture of a chart, empty and full cache."""
    from playwright.sync_api import sync_playwright

    cold, warm = [], []
    base = f"http://127.0.0.1:{desk.port}"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.add_init_script(FIRST_PAINT)
            page.goto(f"{base}/login")
            page.fill("#token", desk.token)
            page.click("text=sign in")
            page.wait_for_url(f"{base}/")
            address = page.locator("tbody a").first.get_attribute("href")
            for found in (cold, warm):
                page.goto(f"{base}{address}", wait_until="commit")
                page.wait_for_selector(MAIN_SVG, timeout=120_000)
                found.append(page.evaluate("() => window.firstChart"))
            context.close()
        browser.close()
    return {"chart_cold_ms": float(np.median(cold)), "chart_warm_ms": float(np.median(warm))}


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="live rounds of a stretch")
    parser.add_argument(
        "--stretches", type=int, default=2, help="with viewers, and as many without"
    )
    parser.add_argument("--speed", type=float, default=600.0, help="market s per wall s")
    parser.add_argument("--page", action="store_true", help="and the page, in headless Chromium")
    parser.add_argument("--minutes", type=int, help="memory instead, for so long")
    parser.add_argument("--requests", type=float, default=REQUESTS_PER_S, help="a second")
    parser.add_argument(
        "--priority", choices=("idle", "low"), default="idle", help="of desk and viewers"
    )
    parser.add_argument("--viewers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.viewers is not None:
        (only_when_idle if arguments.priority == "idle" else lower_priority)()
        token = os.environ["DESK_TOKEN"]
        counts = asyncio.run(view(arguments.viewers, token, arguments.requests, sys.stdin))
        print(json.dumps(counts), flush=True)
        return
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        line = measure(arguments, Path(name))
    line["passed"] = (
        line.get("ratio", 1.0) < RATIO_LIMIT
        and abs(line["desk_memory_growth"]) < GROWTH_LIMIT
        and line.get("chart_cold_ms", 0.0) < 1e3 * CHART_LIMIT_S
    )
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}))


if __name__ == "__main__":
    main()
