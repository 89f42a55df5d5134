"""One HTML page per experiment: the verdict first, then every number it rests on.

Also the same tables as Markdown, for a log of experiments that is kept with the code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from cppncripto_strategy.evaluation.statistics import Estimate
from cppncripto_strategy.experiments.comparison import Comparison
from cppncripto_strategy.experiments.family import Family
from cppncripto_strategy.experiments.verdicts import Verdict, points
from cppncripto_strategy.reports.blocks import Chart, Section, Table
from cppncripto_strategy.reports.charts import (
    HOLD,
    SELL,
    STRATEGY,
    SYMBOL_COLOURS,
    label,
    style,
)
from cppncripto_strategy.reports.pages import write_page
from cppncripto_strategy.reports.values import (
    MISSING,
    anything,
    number,
    percent,
    settings_rows,
    whole,
)

if TYPE_CHECKING:
    from rich.console import RenderableType


PROPER_SCORES = {"log_loss": "Log loss", "brier": "Brier score"}
# Column of the cell table -> (heading, how a value is shown).
CELL_COLUMNS: dict[str, tuple[str, Any]] = {
    "arm": ("Arm", str),
    "seed": ("Seed", str),
    "hit_setups": ("Hit at setups", lambda v: percent(v, 1)),
    "hit_signals": ("Hit at signals", lambda v: percent(v, 1)),
    "hit_all": ("Hit, all candles", lambda v: percent(v, 1)),
    "precision": ("Precision", lambda v: percent(v, 1)),
    "signals": ("Signals", whole),
    "break_even_hit_ratio": ("Break-even", lambda v: percent(v, 1)),
    "total_return": ("Return", lambda v: percent(v, 1, sign=True)),
    "sharpe": ("Sharpe", number),
    "max_drawdown": ("Drawdown", lambda v: percent(v, 1)),
    "trades": ("Trades", whole),
    "validation_loss": ("Validation loss", lambda v: number(v, 4)),
    "reconstruction_error": ("Reconstruction error", lambda v: number(v, 3)),
    "probe_r2": ("Probe R2", lambda v: number(v, 3)),
}


@dataclass(frozen=True, eq=False)
class Findings:
    """All that is known about one experiment.

    Parameters
    ----------
    name, title, question, criterion : of the experiment, in words.
    comparisons, verdicts, seeds : one per compared pair, the main one first; `seeds` is what each
        seed alone would have claimed.
    cells : one row per arm and seed (the columns of `results.parquet`).
    curves : arm -> per seed, daily returns indexed by day.
    luck : arm -> what `trials.discounted_sharpe` gives; and "pbo" for the family.
    family : all arms at once.
    about : what was run: command, recipe, candles, span, seeds, date, commit.
    notes : sentences a reader needs, such as the ceiling of a planted market.
    wanted_points : gain of hit ratio the criterion asks for, in percentage points, if any.
    """

    name: str
    title: str
    question: str
    criterion: str
    comparisons: Sequence[Comparison]
    verdicts: Sequence[Verdict]
    seeds: Sequence[pd.DataFrame]
    cells: pd.DataFrame
    curves: Mapping[str, Sequence[pd.Series[float]]]
    luck: Mapping[str, Any]
    family: Family
    about: Mapping[str, Any]
    notes: Sequence[str] = ()
    wanted_points: float | None = None


def write_experiment_page(findings: Findings, path: Path) -> None:
    """Write the experiment's page, self-contained."""
    main, *others = findings.verdicts
    question = [findings.question, findings.criterion, *findings.notes]
    sections = [
        Section(main.headline, _proofs(main), kind="verdict good" if main.met else "verdict"),
        Section("The question", question),
        _differences_section(findings),
        *(Section(verdict.headline, _proofs(verdict)) for verdict in others),
        family_section(findings.family),
        Section(
            "Accounts by arm",
            Chart(accounts_figure(findings.curves), "accounts", scales=True),
            note="Mean over seeds of equity after fees, from 1; thin lines are single seeds.",
        ),
        _seeds_section(findings.seeds),
        Section(
            "Every cell",
            Table(*_cell_table(findings.cells)),
            note="One row per arm and seed; out of sample, after fees and slippage.",
        ),
        _luck_section(findings.luck),
        Section("How it was run", Table(["", ""], settings_rows(findings.about), text=[1])),
    ]
    write_page(path, f"{findings.name.upper()}: {findings.title}", sections)


def _proofs(verdict: Verdict) -> Table:
    rows = [["yes" if holds else "no", claim] for claim, holds in verdict.proofs]
    return Table(["Holds", "Asked for"], rows, text=[1])


def _differences_section(findings: Findings) -> Section:
    wanted = findings.wanted_points
    figure = difference_figure(findings.comparisons, wanted)
    line = "" if wanted is None else f" Dotted line: the {wanted:g} asked for."
    return Section(
        "The differences",
        [Table(*_differences(findings.comparisons)), Chart(figure, "differences")],
        note="Same candles, same seeds. Brackets and bars: 95 % intervals, days and seeds"
        " resampled; hollow marks: single seeds. A negative Diebold-Mariano statistic favours the"
        f" first arm.{line}",
    )


def _differences(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: one column per compared pair."""
    rows: list[tuple[str, Callable[[Comparison], str]]] = [
        ("Candles compared", lambda c: f"{c.candles:,} ({c.where})"),
        ("Hit ratios", lambda c: f"{percent(c.hit_a, 1)} / {percent(c.hit_b, 1)}"),
        ("Hit difference, points", lambda c: points(c.hit_difference, "")),
        ("Diebold-Mariano p (statistic)", _test_text),
        ("Sharpe difference", lambda c: points(c.sharpe_difference, "", 1.0)),
        ("Drawdown difference, points", lambda c: points(c.drawdown_difference, "")),
        ("Precision difference, points", lambda c: points(c.precision_difference, "")),
    ]
    if any(c.proper_scores is not None for c in comparisons):
        for key, name in PROPER_SCORES.items():
            rows += [
                (f"{name} (constant)", partial(_proper_text, key=key)),
                (f"{name} difference", partial(_proper_gap, key=key, over_constant=False)),
                (f"{name}, first arm − constant", partial(_proper_gap, key=key)),
            ]
    head = ["", *(f"{c.a} − {c.b}" for c in comparisons)]
    return head, [[name, *(show(c) for c in comparisons)] for name, show in rows]


def _proper_text(found: Comparison, key: str) -> str:
    """A proper score of both arms, and of the class frequencies of the training days."""
    if found.proper_scores is None:
        return MISSING
    score = found.proper_scores[key]
    return f"{number(score.a, 4)} / {number(score.b, 4)} ({number(score.constant, 4)})"


def _proper_gap(found: Comparison, key: str, over_constant: bool = True) -> str:
    if found.proper_scores is None:
        return MISSING
    score = found.proper_scores[key]
    gap = score.over_constant if over_constant else score.difference
    if gap.value is None:
        return MISSING
    if gap.low is None or gap.high is None:
        return f"{gap.value:+.4f} (no interval)"
    return f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def _test_text(found: Comparison) -> str:
    test = found.diebold_mariano
    return MISSING if test is None else f"{test.p_value:.2g} ({test.statistic:+.1f})"


def _cell_table(cells: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    shown = [name for name in CELL_COLUMNS if name in cells and cells[name].notna().any()]
    rows = [
        [_shown(CELL_COLUMNS[name][1], row[name]) for name in shown] for _, row in cells.iterrows()
    ]
    return [CELL_COLUMNS[name][0] for name in shown], rows


def _shown(show: Any, value: Any) -> str:
    return MISSING if pd.isna(value) else str(show(value))


def family_section(family: Family, what: str = "daily returns of the accounts") -> Section:
    """All arms at once, in words."""
    return Section(
        "All arms at once",
        family.words(),
        note=f"By {what}. SPA (Hansen 2005) asks whether any arm is better, StepM (Romano & Wolf"
        " 2005) which ones, with at most 5 % of such findings wrong however many arms there are."
        " The best arm is in the model confidence set (Hansen, Lunde & Nason 2011) with 95 %"
        " confidence. Days are resampled in blocks.",
    )


def _seeds_section(seeds: Sequence[pd.DataFrame]) -> Section:
    head = ["Arms", "Seed", "Hit difference, points", "Diebold-Mariano p", "Claimed"]
    return Section(
        "Seed by seed",
        Table(head, [row for table in seeds for row in _seed_rows(table)]),
        note="What each seed alone would have claimed (a hit difference whose interval lies above 0"
        " and that Diebold-Mariano confirms at 5 %, or the criterion above met):"
        f" {_claims(seeds)}. Where there is nothing to find, about one seed in forty claims by"
        " luck.",
    )


def _seed_rows(table: pd.DataFrame) -> list[list[str]]:
    return [
        [
            str(row["pair"]),
            str(row["seed"]),
            points(_estimate(row), ""),
            number(_plain(row["diebold_mariano_p"]), 3),
            "yes" if row["found"] else "no",
        ]
        for _, row in table.iterrows()
    ]


def _estimate(row: pd.Series[Any]) -> Estimate:
    return Estimate(_plain(row["hit_difference"]), _plain(row["low"]), _plain(row["high"]), 0)


def _plain(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _luck_section(luck: Mapping[str, Any]) -> Section:
    arms = {arm: value for arm, value in luck.items() if isinstance(value, Mapping)}
    rows = [
        [
            arm,
            percent(value["probabilistic_sharpe"], 1),
            percent(value["deflated_sharpe"], 1),
            percent(value["deflated_sharpe_effective"], 1),
            f"{whole(value['trials'])} ({whole(value['effective_trials'])})",
            number(value["minimum_backtest_days"], 0),
        ]
        for arm, value in arms.items()
    ]
    head = [
        "Arm, first seed",
        "Sharpe above 0",
        "All trials counted",
        "Independent ones counted",
        "Trials (independent)",
        "Minimum days",
    ]
    pbo = luck.get("pbo")
    words = (
        ""
        if pbo is None
        else f" Probability of backtest overfitting over the arms: {percent(pbo, 0)}."
    )
    return Section(
        "How much may be luck",
        Table(head, rows),
        note="Probability that the true Sharpe ratio is above 0, and the same after discounting for"
        " every configuration in the trial ledger, and for the independent ones among them (Bailey"
        " & Lopez de Prado 2014). On records shorter than the minimum luck alone shows as much."
        f"{words}",
    )


def terminal_table(findings: Findings) -> RenderableType:
    """The verdicts and the differences, for the terminal: pair below pair, in 80 columns."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as TerminalTable
    from rich.text import Text

    table = TerminalTable(box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for pair in findings.comparisons:
        (_, heading), rows = _differences([pair])
        table.add_row(Text(heading, style="bold"))
        for name, value in rows:
            table.add_row(f"  {name}", Text(value))
        table.add_section()
    words = [
        Text(verdict.headline, style="bold green" if verdict.met else "bold yellow")
        for verdict in findings.verdicts
    ]
    notes = [Text(note, style="dim") for note in [*findings.family.words(), *findings.notes]]
    title = Text(f"{findings.name.upper()}: {findings.title}", style="italic")
    return Group(title, table, *words, *notes)


# ---------------------------------------------------------------- charts


def difference_figure(comparisons: Sequence[Comparison], wanted: float | None = None) -> go.Figure:
    """Hit differences with intervals, single seeds beside them; 0 and the gain `wanted` as lines.

    wanted : in percentage points; None where a criterion asks for no amount.
    """
    figure = go.Figure()
    for k, found in enumerate(comparisons):
        name, colour = label(f"{found.a} − {found.b}"), SYMBOL_COLOURS[k % len(SYMBOL_COLOURS)]
        seeds = [100 * value for value in found.hit_by_seed]
        marks = {"color": colour, "symbol": "circle-open", "size": 8}
        figure.add_scatter(
            x=seeds, y=[name] * len(seeds), mode="markers", marker=marks, showlegend=False
        )
        _add_interval(figure, found.hit_difference, name, colour)
    figure.add_vline(0, line={"color": HOLD, "width": 1})
    if wanted is not None:
        figure.add_vline(wanted, line={"color": SELL, "width": 1, "dash": "dot"})
    style(figure, 140 + 60 * len(comparisons))
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="hit ratio difference, points")
    figure.update_yaxes(title="arms", autorange="reversed")
    return figure


def _add_interval(figure: go.Figure, estimate: Estimate, name: str, colour: str) -> None:
    if estimate.value is None:
        return
    value = 100 * estimate.value
    low, high = (value if end is None else 100 * end for end in (estimate.low, estimate.high))
    error = {
        "type": "data",
        "symmetric": False,
        "array": [high - value],
        "arrayminus": [value - low],
        "thickness": 2.5,
        "width": 8,
    }
    marker = {"color": colour, "size": 12}
    figure.add_scatter(
        x=[value], y=[name], mode="markers", marker=marker, error_x=error, showlegend=False
    )


def accounts_figure(curves: Mapping[str, Sequence[pd.Series[float]]]) -> go.Figure:
    """Equity of every arm from daily returns: the mean over seeds thick, the seeds thin."""
    figure = go.Figure()
    palette = (STRATEGY, *SYMBOL_COLOURS[1:])
    for k, (arm, seeds) in enumerate(curves.items()):
        colour = palette[k % len(palette)]
        table = pd.concat([(1 + daily).cumprod() for daily in seeds], axis=1)
        days = pd.DatetimeIndex(table.index)
        for column in range(table.shape[1]):
            if table.shape[1] > 1:
                figure.add_scatter(
                    x=days,
                    y=table.iloc[:, column].to_numpy(),
                    mode="lines",
                    opacity=0.3,
                    line={"color": colour, "width": 0.8},
                    showlegend=False,
                    hoverinfo="skip",
                )
        mean = table.mean(axis=1).to_numpy()
        figure.add_scatter(
            x=days, y=mean, mode="lines", name=label(arm), line={"color": colour, "width": 2.2}
        )
    style(figure, 420)
    figure.update_xaxes(title="day, UTC")
    figure.update_yaxes(title="equity, start = 1")
    return figure


# ---------------------------------------------------------------- markdown


def markdown(findings: Findings) -> str:
    """The verdicts, the differences, seed by seed and cell by cell, as Markdown."""
    about = [f"{k.replace('_', ' ')}: {anything(v, k)}  " for k, v in findings.about.items()]
    proofs = findings.verdicts[0].proofs
    blocks = [
        [f"## {findings.name.upper()}: {findings.title}"],
        [findings.question, findings.criterion],
        *([f"**{verdict.headline}**"] for verdict in findings.verdicts),
        [f"- {'yes' if holds else 'no'}: {claim}" for claim, holds in proofs],
        list(findings.notes),
        ["All arms at once:", *(f"- {sentence}" for sentence in findings.family.words())],
        markdown_table(*_differences(findings.comparisons)),
        [f"Seeds that alone would have claimed a gain: {_claims(findings.seeds)}."],
        markdown_table(*_seed_table(findings.seeds)),
        markdown_table(*_cell_table(findings.cells)),
        about,
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _claims(seeds: Sequence[pd.DataFrame]) -> str:
    return "; ".join(f"{t['pair'].iloc[0]}: {int(t['found'].sum())} of {len(t)}" for t in seeds)


def _seed_table(seeds: Sequence[pd.DataFrame]) -> tuple[list[str], list[list[str]]]:
    """One row per seed, one column per pair: hit difference and Diebold-Mariano p."""
    head = ["Seed", *(f"{table['pair'].iloc[0]}, points (p)" for table in seeds)]
    cells = [
        [
            f"{points(_estimate(row), '')} ({number(_plain(row['diebold_mariano_p']), 3)})"
            for _, row in table.iterrows()
        ]
        for table in seeds
    ]
    numbers = [str(seed) for seed in seeds[0]["seed"]]
    return head, [list(row) for row in zip(numbers, *cells, strict=True)]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + " --- |" * len(head), *(line(row) for row in rows)]
