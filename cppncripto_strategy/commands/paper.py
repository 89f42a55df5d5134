"""`cppn-bt paper`: live candles on paper, with the same code as a backtest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cppncripto_strategy.commands._progress import ProgressBars
from cppncripto_strategy.commands._recipe_options import RecipeRequest, recipe_options
from cppncripto_strategy.paths import SESSIONS

if TYPE_CHECKING:
    from cppncripto_strategy.paper.start import PaperPlan
    from cppncripto_strategy.progress import Progress

EXAMPLES = """
\b
Examples:
  cppn-bt paper --demo                       offline: a loopback exchange on this machine, at speed
  cppn-bt fetch BTCUSDT --from 2023-01-01 && cppn-bt paper runs/real.toml --candles candles
  cppn-bt paper runs/real.toml               again: the session resumes
  cppn-bt paper my.toml --demo               that recipe's candles, served by the loopback
  cppn-bt paper --demo --desk                and look at it in a browser (extra: desk)
  cppn-bt paper --demo --report              reports of what is recorded so far, and nothing else
"""


@click.command(epilog=EXAMPLES)
@recipe_options("symbols", "candles", "seed")
@click.option("--demo", is_flag=True, help="Offline, against a loopback exchange.")
@click.option("--name", help="Name of the session; default: the recipe's.")
@click.option(
    "--sessions", default=SESSIONS, show_default=True,
    type=click.Path(file_okay=False, path_type=Path), help="Folder that holds sessions.",
)  # fmt: skip
@click.option(
    "--bundles", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Ready networks instead of training: the folder of a run, of bundles, or of one bundle.",
)  # fmt: skip
@click.option(
    "--speed", default=600.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Demo: market seconds per wall second.",
)  # fmt: skip
@click.option("--stop-after", type=click.IntRange(min=1), help="Stop after so many live candles.")
@click.option("--no-retrain", is_flag=True, help="Keep today's networks as long as it runs.")
@click.option("--rest-url", help="Another REST address (keyless market data).")
@click.option("--stream-url", help="Another websocket address.")
@click.option("--report", "only_report", is_flag=True, help="Write the reports and exit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line and event.")
@click.option("--desk", is_flag=True, help="Serve it in a browser, by a process beside it.")
def command(
    request: RecipeRequest,
    demo: bool,
    name: str | None,
    sessions: Path,
    bundles: Path | None,
    speed: float,
    stop_after: int | None,
    no_retrain: bool,
    rest_url: str | None,
    stream_url: str | None,
    only_report: bool,
    as_json: bool,
    desk: bool,
) -> None:
    """Trade live candles on paper; no key, no real order.

    RECIPE is a TOML file, or the name of a shipped recipe. Candles, times, statuses and trading
    rules are the exchange's; the account and its fills are simulated: next open, taker fee,
    slippage, lot steps. Ctrl-C stops after the present candle and writes the reports; the same
    command resumes the session.
    """
    if request.recipe is None and not demo:
        raise click.UsageError("give a RECIPE, or --demo")
    settings, home = request.load(), request.home()
    path = sessions / (name or settings.name)
    if only_report:
        _report(path, as_json)
        return
    from cppncripto_strategy.feeds.binance.endpoints import Sources
    from cppncripto_strategy.paper.connection import Connection
    from cppncripto_strategy.paper.start import PaperPlan

    public = Sources()
    plan = PaperPlan(
        path=path,
        recipe=settings,
        connection=Connection(replace(public, rest_url=rest_url or public.rest_url,
                                      stream_url=stream_url or public.stream_url)),
        bundles=bundles,
        cache=home.bundles,
        stop_after=stop_after,
        retrain=not no_retrain,
    )  # fmt: skip
    if not as_json:
        plan = replace(plan, training=_training_bar)
    with _desk(sessions, as_json) if desk else nullcontext():
        _run(plan, speed if demo else None, as_json)


@contextmanager
def _desk(sessions: Path, as_json: bool) -> Iterator[None]:
    """A desk of the sessions runs meanwhile, and where is said."""
    from cppncripto_strategy.commands._desk_beside import LOG_FILE, desk_beside

    with desk_beside(sessions) as pid:
        if as_json:
            click.echo(json.dumps({"kind": "desk", "pid": pid, "log": str(sessions / LOG_FILE)}))
        else:
            click.echo(f"A desk begins beside it (process {pid}): see {sessions / LOG_FILE}.")
        yield


@contextmanager
def _training_bar() -> Iterator[Progress]:
    """A progress bar for the first training, on stderr."""
    with ProgressBars() as bars:
        yield bars.phase("training")


def _run(plan: PaperPlan, demo_speed: float | None, as_json: bool) -> None:
    from rich.console import Console

    from cppncripto_strategy.paper.screen import choose_screen
    from cppncripto_strategy.paper.start import run_demo, run_paper

    console = Console()
    screen = choose_screen(as_json, console)
    result = run_paper(plan, screen) if demo_speed is None else run_demo(plan, demo_speed, screen)
    if as_json:
        click.echo(json.dumps({"kind": "result", "session": str(plan.path),
                               "metrics": result.metrics if result else None}))  # fmt: skip
        return
    _summary(console, plan.path, result)


def _report(path: Path, as_json: bool) -> None:
    from rich.console import Console

    from cppncripto_strategy.paper.create import recipe_of
    from cppncripto_strategy.paper.networks import SessionTimeline
    from cppncripto_strategy.paper.session_report import write_session_results

    result = write_session_results(path, recipe_of(path), SessionTimeline.of_session(path))
    if as_json:
        click.echo(json.dumps(result.metrics))
        return
    _summary(Console(), path, result)


def _summary(console: Any, path: Path, result: Any) -> None:
    from cppncripto_strategy.reports.terminal import terminal_summary

    if result is None:
        console.print(f"Nothing live was recorded yet in {path}.", highlight=False)
        return
    console.print(terminal_summary(result))
    session = result.metrics["session"]
    console.print(
        f"  candles watched {session['rounds']}, orders missed {session['missed_orders']}"
        f" (missed.csv), stretches down {len(session['downtime'])}",
        highlight=False,
    )
    if session["exchange"]:
        console.print(f"  {len(session['exchange'])} notices about the exchange (report.html)")
    for file in ("report.html", "tearsheet.html", "metrics.json"):
        console.print(f"  [dim]{path / file}[/]", soft_wrap=True, highlight=False)
