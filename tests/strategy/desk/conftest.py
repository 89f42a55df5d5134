"""A folder of results as people have them: recorded by hand, small, and read-only for all tests."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.live.journal import line_of
from cppncripto_strategy.paper.session import SessionFacts, SessionFolder
from cppncripto_strategy.results import to_toml, write_json, write_table, write_text

START_MS = utc_to_ms("2024-03-01")
STEP_MS = 300_000
SYMBOLS = ("AUSDT", "BUSDT")
ROUNDS, LIVE_FROM, GAP_AT, DOWN = 40, 10, 20, (30, 31)
CASH = 10_000.0
PATIENCE_S = 20.0


def close_ms(number: int) -> int:
    """Close of the numbered round."""
    return START_MS + (number + 1) * STEP_MS


def row(number: int, price: float) -> list[float]:
    """A candle as a journal holds it."""
    prices = [price, price + 2, price - 2, price + 1]
    return [START_MS + number * STEP_MS, *prices, 5.0, 5 * price, 7, 2.5, 2.5 * price]


def round_records(number: int) -> dict[str, list[dict[str, Any]]]:
    """Journal -> records that one round leaves."""
    ms, late = close_ms(number), number in DOWN
    candles = {s: row(number, 100.0 + number + 50 * i) for i, s in enumerate(SYMBOLS)}
    shown: dict[str, Any] = {"t": ms, "c": candles}
    if number == GAP_AT:
        del candles["BUSDT"]
        shown["g"] = ["BUSDT"]
    live = number >= LIVE_FROM and not late
    records: dict[str, list[dict[str, Any]]] = {
        "rounds": [shown],
        "opened": [{"i": number, "t": ms, "a": list(SYMBOLS) if live else []}],
        "decisions": [decision(symbol, number) for symbol in candles],
        "equity": [{"t": ms, "equity": equity(number), "cash": CASH / 2}],
        "fills": [],
        "latency": [{"t": ms, "s": latency_s(number), "lag": 0.5}] if live else [],
    }
    if number % 8 == 4:
        records["fills"].append(fill(number, late=not live))
    if number == DOWN[0]:
        records["fills"].append(fill(number, late=True))
    if number == GAP_AT + 1:
        records["fills"].append({**fill(number, late=True), "reason": "min_notional"})
    return records


def equity(number: int) -> float:
    """The account after a round: up, then down, then up."""
    return CASH + 50 * np.sin(number / 4) * 4


def latency_s(number: int) -> float:
    """Seconds that a round took to decide."""
    return 0.002 if number % 10 else 0.02


def decision(symbol: str, number: int) -> dict[str, Any]:
    """A candle as it was judged."""
    price, score = 101.0 + number + 50 * SYMBOLS.index(symbol), float(np.sin(number))
    return {
        "symbol": symbol, "close_time_ms": close_ms(number), "close": price, "score": score,
        "p_buy": 0.4, "p_sell": 0.3, "score_zero": None, "upper": 0.5, "lower": -0.5,
        "signal": int(score > 0.5) - int(score < -0.5), "drift": 1.25, "age_ms": 3_600_000.0,
    }  # fmt: skip


def fill(number: int, late: bool) -> dict[str, Any]:
    """A buy that filled, or an order of a candle that was seen too late."""
    return {
        "symbol": "AUSDT", "created_ms": close_ms(number), "executed_ms": close_ms(number + 1),
        "side": "buy", "quantity": 0.5, "price": None if late else 100.0, "notional": 50.0,
        "fee": 0.05, "reference_price": 100.0, "reason": "can_trade" if late else "signal",
        "status": "refused" if late else "filled", "detail": "",
    }  # fmt: skip


def append(session: Path, records: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write records as a session does, at the end of its journals."""
    for name, lines in records.items():
        with (session / f"{name}.jsonl").open("ab") as file:
            file.write(b"".join(line_of(line) for line in lines))


def make_session(path: Path) -> None:
    """A session of forty rounds, ten of them warm-up, with a gap and two rounds down."""
    facts = SessionFacts(
        symbols=SYMBOLS, interval="5m", first_ms=START_MS, created_ms=START_MS,
        broker={"cash": CASH, "fee_bps": 10.0, "slippage_bps": 1.0, "allow_short": False},
    )  # fmt: skip
    with SessionFolder.create(path, facts) as folder:
        folder.event("start", resumed=False, rounds=0)
    for number in range(ROUNDS):
        append(path, round_records(number))
    bet = {"bet": "account", "session_ms": START_MS, "signals": 3, "crossed": 0, "incomplete": 0,
           "mean_net_bps": 5.0, "stake": 0.1, "wealth": 2.5, "closing": 0.0, "open": 0,
           "needed": 20.0}  # fmt: skip
    append(path, {
        "evidence": [bet],
        "events": [
            {"kind": "connected", "at_ms": START_MS, "away_s": None},
            {"kind": "connection_lost", "at_ms": START_MS, "reason": "OSError: reset"},
            {"kind": "connected", "at_ms": START_MS, "away_s": 4.0},
            {"kind": "symbol_back", "at_ms": START_MS, "symbol": "AUSDT"},
            {"kind": "stop", "at_ms": START_MS, "reason": "asked to", "rounds": ROUNDS},
        ],
    })  # fmt: skip


def make_run(path: Path, name: str, seed: int, sharpe: float | None) -> None:
    """A finished run: manifest, metrics, recipe, equity and a report."""
    times = START_MS + DAY_MS * np.arange(200)
    steps = np.random.default_rng(seed).normal(1e-3, 0.01, 200)
    table = pd.DataFrame({"close_time_ms": times, "equity": CASH * np.cumprod(1 + steps)})
    write_table(table, path / "equity.parquet")
    span = {"start_ms": int(times[0]), "end_ms": int(times[-1])}
    account = {**span, "total_return": 0.1 * seed, "sharpe": sharpe, "max_drawdown": 0.2}
    write_json(path / "metrics.json", {
        "strategy": {**account, "cagr": None, "trades": 12},
        "benchmark": {"total_return": 0.05},
        "evidence": {"sentence": "Evidence: 2 of the 20 needed.", "open": False},
    })  # fmt: skip
    recipe = {"name": name, "symbols": ["AUSDT"], "interval": "5m", "seed": seed,
              "strategy": {"hold_candles": 3 + seed}}  # fmt: skip
    write_text(path / "recipe.toml", to_toml(recipe))
    write_text(path / "report.html", f"<!doctype html><title>{seed}</title><p>report</p>")
    write_json(path / "manifest.json", {"created": "2024-10-01T00:00:00+00:00", "trials": seed})


@pytest.fixture(scope="session")
def results(tmp_path_factory: Any, toy: Any) -> Path:
    """A folder with a session, two runs, one that failed, an experiment, evolution and candles."""
    root: Path = tmp_path_factory.mktemp("desk") / "results"
    make_session(root / "paper" / "real")
    make_run(root / "runs" / "tiny" / "20240301T000000Z", "tiny", 1, 1.5)
    make_run(root / "runs" / "tiny" / "20240302T000000Z", "tiny", 2, None)
    failed = root / "runs" / "tiny" / "20240303T000000Z"
    failed.mkdir()
    (failed / "log.jsonl").write_text(json.dumps({"message": "no candles of AUSDT"}) + "\n")
    write_json(root / "runs" / "tiny" / "experiments" / "e1.json",
               {"title": "Macro", "verdicts": [{"headline": "Macro helps."}]})  # fmt: skip
    write_json(root / "runs" / "tiny" / "evolution" / "checkpoint.json",
               {"generation": 4, "front": [1, 2]})  # fmt: skip
    write_json(root / "runs" / "tiny" / "tuning" / "search.json", {
        "trials": {"total": 12, "complete": 11, "pruned": 1, "failed": 0, "running": 0},
        "objectives": ["sharpe"], "best": {"number": 7, "values": [1.25]}, "sealed": None,
    })  # fmt: skip
    CandleStore(root / "candles").write("AUSDT", "1h", toy.candles(days=24, missing=(7, 8)))
    return root


@pytest.fixture
def copy_of(results: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may damage."""
    return Path(shutil.copytree(results, tmp_path / "copy"))


@pytest.fixture(scope="session")
def desk() -> SimpleNamespace:
    """What the folder holds, and functions that add to it."""
    return SimpleNamespace(
        start_ms=START_MS, step_ms=STEP_MS, symbols=SYMBOLS, rounds=ROUNDS, live_from=LIVE_FROM,
        down=DOWN, close_ms=close_ms, equity=equity, latency_s=latency_s, append=append,
        round_records=round_records, make_run=make_run,
    )  # fmt: skip


TOKEN = "the-right-token-" + "x" * 32
HOST = "http://127.0.0.1:8470"


def write_token(folder: Path) -> Path:
    """A file with the token, as the desk makes it."""
    path = folder / "secret" / "desk-token"
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the token."""
    return write_token(tmp_path)


@pytest.fixture
def token() -> str:
    """The token of `token_file`."""
    return TOKEN


class Client:
    """Requests to a desk in this process, as httpx sends them; keeps cookies."""

    def __init__(self, app: Any, bearer: str | None) -> None:
        self._transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self._bearer = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
        self.cookies = httpx.Cookies()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer; redirects are not followed."""
        return asyncio.run(self._request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        """As `request`."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """As `request`."""
        return self.request("POST", path, **more)

    async def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**self._bearer, **more.pop("headers", {})}
        async with httpx.AsyncClient(
            transport=self._transport, base_url=HOST, cookies=self.cookies
        ) as client:
            answer = await client.request(method, path, headers=headers, **more)
            self.cookies = client.cookies
            return answer


def client_of(folder: Path, token_file: Path, bearer: str | None = TOKEN, **changes: Any) -> Client:
    """A client of the whole desk over a folder, with the token unless another is given."""
    pytest.importorskip("fastapi")

    from cppncripto_strategy.desk.app import build
    from cppncripto_strategy.desk.credentials import Credentials
    from cppncripto_strategy.desk.settings import DeskSettings

    settings = DeskSettings(folder, token_file, **changes)
    return Client(build(settings, Credentials(token_file)), bearer)


@pytest.fixture
def desk_of(token_file: Path) -> Any:
    """`client_of` with a token file of the test's own."""
    return lambda folder, *rest, **changes: client_of(folder, token_file, *rest, **changes)


@pytest.fixture(scope="session")
def client(results: Path, tmp_path_factory: Any) -> Client:
    """A client of a desk over `results`, with the token."""
    token_file = write_token(tmp_path_factory.mktemp("client"))
    return client_of(results, token_file)


@contextmanager
def serve(folder: Path, token_file: Path, port: int = 0, **limits: Any) -> Iterator[int]:
    """The port of a desk on 127.0.0.1 that runs meanwhile."""
    pytest.importorskip("uvicorn")
    from cppncripto_strategy.desk.app import build
    from cppncripto_strategy.desk.credentials import Credentials
    from cppncripto_strategy.desk.server import DeskServer, bind
    from cppncripto_strategy.desk.settings import DeskSettings, Limits

    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    settings = DeskSettings(folder, token_file, port=port, limits=Limits(**limits))
    app = build(settings, Credentials(token_file))
    with bind(settings) as listener:
        server = DeskServer(settings, app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until_s = time.monotonic() + PATIENCE_S
            while not server.started and time.monotonic() < until_s:
                time.sleep(0.01)
            yield port
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


@pytest.fixture(scope="session")
def serving() -> Any:
    """`serve`."""
    return serve


@pytest.fixture(scope="session")
def embed_days(toy: Any) -> Any:
    """Function of a folder: twenty days of AUSDT on a line, two of them far away; the first day."""
    import pyarrow as pa

    from cppncripto_strategy.embeddings import SCHEMA, write_embeddings

    def made(folder: Path) -> int:
        first = int(toy.candles(days=1).open_time[0])
        along = np.array([*np.linspace(0, 1, 18), 9.0, 9.5])
        axis = np.ones(4) / 2
        rows = [
            {
                "symbol": "AUSDT", "session_ms": first + n * DAY_MS,
                "valid_from_ms": first + n * DAY_MS, "data_start_ms": first + (n - 2) * DAY_MS,
                "data_end_ms": first + n * DAY_MS, "model_hash": "m", "encoder_hash": "e",
                "in_sample": n < 5, "vector": (along[n] * axis).tolist(),
            }
            for n in range(len(along))
        ]  # fmt: skip
        write_embeddings(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "embeddings.parquet")
        return first

    return made
