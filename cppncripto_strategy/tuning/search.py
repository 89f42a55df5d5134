"""A search from beginning to end: candidates asked for, evaluated, judged; one chosen; one opening.

The same call resumes a search that ended in whatever way, and two processes may make it at once.
Left out: what stands on the page (`page`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pandas as pd

from cppncripto_strategy.errors import RecipeError, SourceError, TrainingError
from cppncripto_strategy.evaluation.trials import Trial, TrialLedger, fingerprint
from cppncripto_strategy.foreign import read_object, reading
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import to_plain, write_json
from cppncripto_strategy.spreading.crew import Crew, crew
from cppncripto_strategy.spreading.spread import Spread
from cppncripto_strategy.tuning.evaluation import evaluate
from cppncripto_strategy.tuning.found import Found, Pulse
from cppncripto_strategy.tuning.measures import StepResult, daily_of
from cppncripto_strategy.tuning.page import write_tuning_page
from cppncripto_strategy.tuning.plan import Plan, make_plan
from cppncripto_strategy.tuning.sealed import OpeningLedger, SealedResult, open_sealed
from cppncripto_strategy.tuning.space import read_space
from cppncripto_strategy.tuning.storage import open_storage
from cppncripto_strategy.tuning.study import DoneTrial, LiveTrial, TrialStudy, best_of
from cppncripto_strategy.tuning.worth import judge_worth

log = logging.getLogger(__name__)

Watcher = Callable[[Pulse], None]
SUMMARY, PAGE, SEALED, UNTUNED = "search.json", "tuning.html", "sealed.json", "untuned.json"
_UNTUNED = "untuned"
# Candidates that all fail say that the space is wrong, and the next hundred will say the same.
_FAILURES = 8


@dataclass(frozen=True)
class Where:
    """Where a search lies and runs.

    Parameters
    ----------
    home : the recipe's: trial ledger, ledger of openings, bundles.
    folder : of the study.
    storage : URL of a database; None is the journal in the folder.
    spread : where steps are evaluated.
    """

    home: Path
    folder: Path
    storage: str | None = None
    spread: Spread = field(default_factory=lambda: Spread("none"))


def tune(
    recipe: Recipe,
    where: Where,
    watcher: Watcher | None = None,
    fresh: bool = False,
    take_over: bool = False,
    keep_sealed: bool = False,
) -> Found:
    """Search, or resume, and write the folder; after the last trial, open the sealed days.

    Parameters
    ----------
    recipe : with its tables [search] and [space].
    watcher : hears after every step how the search gets on.
    fresh : put a study of the folder aside and begin anew.
    take_over : run again what processes on other machines left running.
    keep_sealed : leave the sealed days closed.

    Raises
    ------
    CppnError
        When the space, the candles or the study do not allow it, or every candidate fails.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = read_space(recipe.space)
    plan = make_plan(recipe, space, where.home / "bundles")
    if fresh:
        _put_aside(where)
    began = time.monotonic()
    storage = open_storage(where.folder, where.storage)
    with TrialStudy(plan, space, where.folder, storage, take_over) as study:
        run = _Run(study, where, watcher, began)
        stopped = run.to_end()
        found = run.found(stopped)
        if stopped is None and not keep_sealed:
            found = _opened(found, study, where)
    found = replace(found, worth=judge_worth(found))
    write_found(found, where.folder, recipe.name)
    return found


def write_found(found: Found, folder: Path, name: str) -> None:
    """Write summary and page."""
    write_json(folder / SUMMARY, found.summary())
    write_tuning_page(folder / PAGE, found, name)


def _put_aside(where: Where) -> None:
    if where.storage is not None:
        raise RecipeError("--fresh is for the journal: give --storage another database")
    if not where.folder.exists():
        return
    aside = where.folder.with_name(f"{where.folder.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    where.folder.rename(aside)
    log.warning("the study that was there lies in %s now", aside)


class _Run:
    """One process's part of a search; lives for one call of `tune`."""

    def __init__(
        self, study: TrialStudy, where: Where, watcher: Watcher | None, began: float
    ) -> None:
        self.study, self.plan, self.where = study, study.plan, where
        self._watcher, self._began = watcher, began
        self._live: dict[int, LiveTrial] = {}
        self._untuned = _read_untuned(where.folder, self.plan)
        self._ended = 0
        self._counted: set[str] = {t.fingerprint for t in TrialLedger(where.home).read()}
        self._train_s: dict[str, float] = {}
        self._best: DoneTrial | None = None
        for trial in study.done():
            self._count(trial)
            self._remember(trial.steps)

    def to_end(self) -> KeyboardInterrupt | None:
        """Run until there is nothing left to claim; the signal that ended it before, or None."""
        try:
            with crew(self.where.spread, evaluate, self.plan) as workers:
                self._judge_untuned(workers)
                self._tell()
                while self._fill(workers):
                    self._take(workers)
        except KeyboardInterrupt as stopped:
            return stopped
        return None

    def _judge_untuned(self, workers: Crew) -> None:
        """The recipe as it is, on every step: what candidates are compared with."""
        if self._untuned:
            return
        for number, step in enumerate(self.plan.steps):
            workers.submit(number, {}, *step)
        results: dict[int, StepResult] = {}
        while workers.busy:
            number, result = workers.completed()
            if "refused" in result:
                raise TrainingError(f"the recipe as it is cannot be judged: {result['refused']}")
            results[number] = StepResult.from_plain(result)
        self._untuned = [results[number] for number in sorted(results)]
        self._remember(self._untuned)
        steps = [step.to_plain() for step in self._untuned]
        write_json(self.where.folder / UNTUNED, {"plan": self.plan.digest, "steps": steps})

    def _fill(self, workers: Crew) -> bool:
        """Claim trials for idle workers; whether anything is being done."""
        while workers.busy < workers.size:
            live = self.study.claim()
            if live is None:
                break
            if live.ended:
                self.study.settle(live)
                self._end(live.number)
                continue
            self._live[live.number] = live
            workers.submit(live.number, live.changes, *self.plan.steps[0])
        return workers.busy > 0

    def _take(self, workers: Crew) -> None:
        """Take one result: the trial's next step, or its end."""
        number, result = workers.completed()
        live = self._live[number]
        if "refused" in result:
            self.study.fail(live, str(result["refused"]))
            ended = True
        else:
            ended = self.study.add(live, self._with_costs(StepResult.from_plain(result)))
        if ended:
            del self._live[number]
            self._end(number)
        else:
            workers.submit(number, live.changes, *self.plan.steps[len(live.steps)])

    def _with_costs(self, step: StepResult) -> StepResult:
        """Networks that were ready cost what they cost when they were made."""
        known = max(step.train_s, self._train_s.get(step.networks, 0.0))
        self._train_s[step.networks] = known
        return replace(step, train_s=known)

    def _remember(self, steps: list[StepResult]) -> None:
        for step in steps:
            self._with_costs(step)

    def _end(self, number: int) -> None:
        self._ended += 1
        trial = self.study.read(number)
        self._count(trial)
        self._tell()
        counts = self.study.counts()
        if counts["failed"] >= _FAILURES and not counts["complete"] + counts["pruned"]:
            raise TrainingError(
                f"all of the first {counts['failed']} candidates failed; the last one:"
                f" {trial.reason}"
            )

    def _count(self, trial: DoneTrial) -> None:
        """Every candidate that was judged is a trial, as every run is."""
        if trial.state == "complete" and trial.feasible:
            best = [b for b in (self._best, trial) if b is not None]
            self._best = best_of(best, self.plan)
        key = fingerprint(trial.changes, self.plan.search.seed, self.plan.digest)
        if not trial.steps or key in self._counted:
            return
        self._counted.add(key)
        days, daily = daily_of(trial.steps)
        series = pd.Series(daily, index=pd.to_datetime(days, unit="D"))
        where = f"{self.where.folder.name}/trials/{trial.number:05d}.json"
        name, seed = f"trial {trial.number}", self.plan.search.seed
        TrialLedger(self.where.home).append(Trial.of(key, "tune", name, seed, series, where))

    def _tell(self) -> None:
        if self._watcher is not None:
            self._watcher(self.pulse())

    def pulse(self) -> Pulse:
        """How the search gets on."""
        counts, passed = self.study.counts(), time.monotonic() - self._began
        left = self.study.total - (counts["complete"] + counts["pruned"] + counts["failed"])
        return Pulse(
            total=self.study.total,
            **counts,
            best=self._best,
            per_minute=60 * self._ended / passed if passed else 0.0,
            left_s=left * passed / self._ended if self._ended else None,
        )

    def found(self, stopped: KeyboardInterrupt | None) -> Found:
        """What there is now."""
        return Found(
            plan=self.plan,
            space=self.study.space,
            trials=self.study.done(),
            untuned=self._untuned,
            pulse=self.pulse(),
            seconds=time.monotonic() - self._began,
            sealed=read_sealed(self.where.folder),
            importance=self.study.importance(),
            interrupted=stopped,
        )


def _read_untuned(folder: Path, plan: Plan) -> list[StepResult]:
    path = folder / UNTUNED
    if not path.is_file():
        return []
    with reading(path, "record of a trial", SourceError, "Delete it: it is made again"):
        values = read_object(path)
        if values["plan"] != plan.digest:
            return []
        return [StepResult.from_plain(step) for step in values["steps"]]


def read_sealed(folder: Path) -> SealedResult | None:
    """What the sealed days showed last; None while they are closed."""
    path = folder / SEALED
    if not path.is_file():
        return None
    with reading(path, "record of sealed days", SourceError):
        return SealedResult.from_plain(read_object(path))


def _opened(found: Found, study: TrialStudy, where: Where) -> Found:
    """The same with the sealed days opened for its best trial, unless they were already for it."""
    best = found.best
    path = where.folder / f".opening{LOCK_FILE}"
    with FileLock.take(path, "the opening", SourceError, "", 3600.0):
        if best is None or study.counts()["running"]:  # whoever runs the last trial opens
            return found
        before = read_sealed(where.folder)
        if before is not None and before.opening.changes == to_plain(best.changes):
            return replace(found, sealed=before)
        ledger = OpeningLedger(where.home)
        result = open_sealed(found.plan, ledger, where.folder, best.number, best.changes)
        write_json(where.folder / SEALED, result.to_plain())
    return replace(found, sealed=result)
