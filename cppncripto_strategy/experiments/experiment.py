"""The four experiments: does macro help, which objective, which short window, which threshold?

    E1  macro against no macro                     criterion: +5 points of hit ratio
    E2  autoencoder, contrast, masked patches      better Sharpe and lower reconstruction error
    E3  short window of 2, 5 and 10 hours          higher return for its risk
    E4  static against adaptive threshold          lower drawdown at high precision

Each arm is the user's own recipe with one setting changed, run through the same walk-forward and
the same backtest under several seeds. A finished cell (arm, seed) is kept under a hash of what went
into it: a killed experiment resumes, and the arms that experiments share are run once.

Left out: a search over settings. Every cell is counted in the trial ledger all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.evaluation.account import BPS
from cppncripto_strategy.evaluation.statistics import overfitting_probability
from cppncripto_strategy.evaluation.trials import (
    LOCK_TIMEOUT_S,
    Trial,
    TrialLedger,
    discounted_sharpe,
    fingerprint,
)
from cppncripto_strategy.experiments.cells import Arm, Cell, CellRunner, obtain_cell
from cppncripto_strategy.experiments.comparison import (
    DEFAULT_RESAMPLES,
    ArmTables,
    Comparison,
    Question,
    Resampling,
    Where,
    compare,
)
from cppncripto_strategy.experiments.family import arm_family
from cppncripto_strategy.experiments.page import Findings, write_experiment_page
from cppncripto_strategy.experiments.verdicts import Verdict
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.results import to_plain, write_json, write_table

RESULTS_FILE = "results.parquet"


@dataclass(frozen=True)
class Experiment:
    """A question, its arms, and which of them are compared.

    Parameters
    ----------
    pairs : (a, b) arm names; the first pair is the one the criterion is about.
    judge : turns a comparison and both arms' rows of the cell table into a verdict.
    wanted_points : gain of hit ratio the criterion asks for, in percentage points, if any.
    """

    name: str
    title: str
    question: str
    criterion: str
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...]
    judge: Callable[[Comparison, pd.DataFrame, pd.DataFrame], Verdict]
    wanted_points: float | None = None


def mean_of(rows: pd.DataFrame, name: str) -> float | None:
    """Mean of a column of the cell table, None where it is absent or empty."""
    known = rows[name].dropna().to_numpy(np.float64) if name in rows else np.zeros(0)
    return float(known.mean()) if len(known) else None


def cell_key(identity: str, seed: int) -> str:
    """Name of a finished cell: a hash over what its arm follows from, and the seed."""
    return fingerprint({"arm": identity}, seed, "")


def run_experiment(
    experiment: Experiment,
    seeds: Sequence[int],
    out: Path,
    run_cell: CellRunner,
    identity: Callable[[Arm], str],
    about: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
    resamples: int = DEFAULT_RESAMPLES,
) -> Findings:
    """Run every cell that is not there yet, compare the arms, and write page and table.

    Parameters
    ----------
    seeds : each arm is run once under each.
    out : results folder of all experiments of a recipe; finished cells lie in `out/cells`.
    run_cell : runs one cell.
    identity : hash of all that an arm's cells follow from, but the seed: recipe, candles, code.
    about, notes : what the page says about the run.
    progress : called with (done, total, text), over all cells.
    resamples : of days and seeds, for the intervals.

    Raises
    ------
    SourceError
        When another process runs the experiment in this folder. Different experiments may share a
        folder: a cell that both need is run by one and waited for by the other.
    """
    advice = "wait for it to end, or give this one another --out"
    name = f"the experiment {experiment.name} in {out}"
    path = out / f".{experiment.name}{LOCK_FILE}"
    with FileLock.take(path, name, SourceError, advice):
        cells = _run_cells(experiment, seeds, out, run_cell, identity, progress)
        findings = conclude(experiment, cells, TrialLedger(out), about or {}, notes, resamples)
        _write(findings, out)
    return findings


def _run_cells(
    experiment: Experiment,
    seeds: Sequence[int],
    out: Path,
    run_cell: CellRunner,
    identity: Callable[[Arm], str],
    progress: Progress | None,
) -> dict[str, list[Cell]]:
    """Every cell by its arm's name, run or read, each counted as a trial."""
    total = len(experiment.arms) * len(seeds)
    cells: dict[str, list[Cell]] = {}
    for number, (arm, seed) in enumerate((a, s) for a in experiment.arms for s in seeds):
        where = f"{experiment.name} {arm.name}, seed {seed} ({number + 1} of {total})"

        def report(done: int, of: int, text: str, number: int = number, where: str = where) -> None:
            if progress is not None:
                share = round(1000 * (number + done / max(of, 1)))
                progress(share, 1000 * total, f"{where}: {text}")

        report(0, 1, "")
        key = cell_key(identity(arm), seed)
        cell = obtain_cell(arm, seed, key, out, run_cell, report)
        _count_trial(TrialLedger(out), experiment, arm, cell, key)
        cells.setdefault(arm.name, []).append(cell)
    return cells


def _write(findings: Findings, out: Path) -> None:
    """The table of all experiments, and this one's answer and page."""
    path = out / f".{RESULTS_FILE}{LOCK_FILE}"
    with FileLock.take(path, str(out / RESULTS_FILE), SourceError, "try again", LOCK_TIMEOUT_S):
        write_table(_all_rows(out / RESULTS_FILE, findings), out / RESULTS_FILE)
    write_json(out / f"{findings.name}.json", summary(findings))
    write_experiment_page(findings, out / f"{findings.name}.html")


def _count_trial(
    ledger: TrialLedger, experiment: Experiment, arm: Arm, cell: Cell, key: str
) -> None:
    if any(trial.fingerprint == key for trial in ledger.read()):
        return
    seed, daily = cell.tables.seed, cell.tables.daily
    ledger.append(Trial.of(key, experiment.name, arm.name, seed, daily, f"cells/{key}"))


def conclude(
    experiment: Experiment,
    cells: Mapping[str, Sequence[Cell]],
    ledger: TrialLedger,
    about: Mapping[str, Any],
    notes: Sequence[str] = (),
    resamples: int = DEFAULT_RESAMPLES,
) -> Findings:
    """Compare the arms of an experiment whose cells are all there.

    `about` must name the label's `horizon` (candles) and `label_threshold_bps`.
    """
    table = pd.DataFrame([cell.row for arm in experiment.arms for cell in cells[arm.name]])
    table.insert(0, "experiment", experiment.name)
    comparisons = [_compare(cells, a, b, about, resamples) for a, b in experiment.pairs]
    verdicts = [
        experiment.judge(c, table[table["arm"] == c.a], table[table["arm"] == c.b])
        for c in comparisons
    ]
    curves = {arm.name: [cell.tables.daily for cell in cells[arm.name]] for arm in experiment.arms}
    return Findings(
        name=experiment.name,
        title=experiment.title,
        question=experiment.question,
        criterion=experiment.criterion,
        comparisons=comparisons,
        verdicts=verdicts,
        seeds=[
            _seed_by_seed(experiment, cells, pair, about, resamples) for pair in experiment.pairs
        ],
        cells=table,
        curves=curves,
        luck=_luck(curves, ledger),
        family=arm_family(curves, experiment.pairs[0][1], _shared(cells, experiment.pairs[0][0])),
        about=about,
        notes=notes,
        wanted_points=experiment.wanted_points,
    )


def _where(cells: Mapping[str, Sequence[Cell]], arm: str) -> Where:
    planted = bool(cells[arm][0].tables.decisions["setup"].any())
    return "setups" if planted else "signals"


def _shared(cells: Mapping[str, Sequence[Cell]], arm: str) -> bool:
    """Whether all seeds of an arm saw the same candles."""
    return len({cell.row["market"] for cell in cells[arm]}) == 1


def _compare(
    cells: Mapping[str, Sequence[Cell]],
    a: str,
    b: str,
    about: Mapping[str, Any],
    resamples: int,
) -> Comparison:
    shared = _shared(cells, a)
    question = Question(
        where=_where(cells, a),
        horizon=int(about["horizon"]),
        label_threshold=float(about["label_threshold_bps"]) * BPS,
        resampling=Resampling(shared, resamples=resamples),
    )
    first, second = (ArmTables(name, [cell.tables for cell in cells[name]]) for name in (a, b))
    return compare(first, second, question)


def _seed_by_seed(
    experiment: Experiment,
    cells: Mapping[str, Sequence[Cell]],
    pair: tuple[str, str],
    about: Mapping[str, Any],
    resamples: int,
) -> pd.DataFrame:
    """What each seed alone would have claimed: on a market without an answer, nothing.

    A claim is a gain of hit ratio that is proved, or the experiment's own criterion met.
    """
    a, b = pair
    rows = []
    for ours, theirs in zip(cells[a], cells[b], strict=True):
        alone = _compare({a: [ours], b: [theirs]}, a, b, about, resamples)
        verdict = experiment.judge(alone, pd.DataFrame([ours.row]), pd.DataFrame([theirs.row]))
        gap, test = alone.hit_difference, alone.diebold_mariano
        rows.append(
            {
                "pair": f"{a} - {b}",
                "seed": ours.tables.seed,
                "hit_difference": gap.value,
                "low": gap.low,
                "high": gap.high,
                "diebold_mariano_p": None if test is None else test.p_value,
                "found": alone.hit_proved or verdict.met,
            }
        )
    return pd.DataFrame(rows)


def _luck(curves: Mapping[str, Sequence[pd.Series[float]]], ledger: TrialLedger) -> dict[str, Any]:
    luck: dict[str, Any] = {
        arm: discounted_sharpe(seeds[0].to_numpy(np.float64), ledger)
        for arm, seeds in curves.items()
    }
    means = [pd.concat(seeds, axis=1).mean(axis=1) for seeds in curves.values()]
    matrix = pd.concat(means, axis=1, join="inner").dropna().to_numpy(np.float64).T
    luck["pbo"] = overfitting_probability(matrix, 8)
    return luck


def _all_rows(path: Path, findings: Findings) -> pd.DataFrame:
    """The table of all experiments: the old rows of others, and this one's."""
    if not path.is_file():
        return findings.cells
    old = pd.read_parquet(path)
    kept = old[old["experiment"] != findings.name]
    return pd.concat([kept, findings.cells], ignore_index=True) if len(kept) else findings.cells


def summary(findings: Findings) -> dict[str, Any]:
    """An experiment's answer as plain values, for `--json` and for the file beside its page."""
    return {
        "experiment": findings.name,
        "title": findings.title,
        "verdicts": [to_plain(vars(verdict)) for verdict in findings.verdicts],
        "comparisons": [_plain_comparison(compared) for compared in findings.comparisons],
        "found_in_seeds": [
            {
                "pair": str(table["pair"].iloc[0]),
                "found": int(table["found"].sum()),
                "of": len(table),
            }
            for table in findings.seeds
        ],
        "family": findings.family.to_plain(),
        "luck": to_plain(findings.luck),
        "about": to_plain(findings.about),
    }


def _plain_comparison(found: Comparison) -> dict[str, Any]:
    return {**to_plain(asdict(found)), "hit_proved": found.hit_proved}
