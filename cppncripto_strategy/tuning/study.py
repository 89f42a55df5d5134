"""The trials of a search: who runs which, what came of them, and nothing lost or done twice.

A trial lives in Optuna's storage; the results of its steps lie beside it, in `trials/00017.json` of
the study's folder, written before the trial is said to be finished. A process that runs trials
holds a lock of its own as long as it lives: a trial that is running under a lock that nobody holds
was lost, and whoever asks next runs it again, under its number and with its values; or says that it
is finished, where its file is there and only this was missing.

Left out: which values to try (`samplers`), what a step computes (`evaluation`).
"""

from __future__ import annotations

import json
import logging
import platform
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from cppncripto_strategy.errors import RecipeError, SourceError
from cppncripto_strategy.foreign import read_object, reading
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.results import to_plain, write_json
from cppncripto_strategy.tuning.measures import (
    MEASURES,
    StepResult,
    all_values,
    excesses,
    objective_values,
)
from cppncripto_strategy.tuning.plan import Plan
from cppncripto_strategy.tuning.samplers import make_pruner, make_sampler
from cppncripto_strategy.tuning.space import Changes, Space

log = logging.getLogger(__name__)

STUDY_NAME = "search"
TRIALS = "trials"
_RUNNER, _ABOUT, _CHANGES, _REASON = "runner", "about", "changes", "reason"
_CLAIM_TIMEOUT_S = 120.0
_FEWEST_FOR_IMPORTANCE = 10
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class LiveTrial:
    """A trial that this process runs: lives from its claim until it is finished.

    Parameters
    ----------
    ended : how it ended, where the process that ran it was killed before it said so; else "".
    reason : why it failed, or "".
    """

    trial: Trial
    changes: Changes
    steps: list[StepResult] = field(default_factory=list)
    ended: str = ""
    reason: str = ""

    @property
    def number(self) -> int:
        """Its number in the study, from 0."""
        return int(self.trial.number)


@dataclass(frozen=True)
class DoneTrial:
    """A finished trial.

    Parameters
    ----------
    state : "complete", "pruned" or "failed".
    values : objectives in the recipe's order; of a pruned trial, those of the steps it took.
    measures : every measure by name.
    feasible : whether it keeps the constraints; True without any.
    steps : results of its steps, [] where its file is not in this folder.
    reason : why it failed, or "".
    seconds : from its start to its end.
    """

    number: int
    state: str
    changes: Changes
    values: tuple[float, ...] | None
    measures: dict[str, float | None]
    feasible: bool
    steps: list[StepResult]
    reason: str
    seconds: float


class TrialStudy:
    """One search's trials; a context manager, which holds this process's lock.

    Parameters
    ----------
    folder : of the study, made here.
    take_over : run again what processes of other machines left running; only right when they are
        gone.
    """

    def __init__(
        self,
        plan: Plan,
        space: Space,
        folder: Path,
        storage: BaseStorage,
        take_over: bool = False,
    ) -> None:
        self.plan, self.space, self.folder = plan, space, folder
        self._take_over = take_over
        self._runner = f"{platform.node()}|{uuid.uuid4().hex}"
        self._alive = FileLock.take(self._lock_of(self._runner), "this search", SourceError, "")
        search = plan.search
        self.study = optuna.create_study(
            study_name=STUDY_NAME,
            storage=storage,
            sampler=make_sampler(search, space),
            pruner=make_pruner(search),
            directions=[
                "maximize" if MEASURES[n].higher else "minimize" for n in search.objectives
            ],
            load_if_exists=True,
        )
        self._require_same()

    def __enter__(self) -> TrialStudy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._alive.release()

    @property
    def total(self) -> int:
        """Trials that the search has in the end."""
        search = self.plan.search
        return (
            min(search.trials, self.space.grid_size) if search.sampler == "grid" else search.trials
        )

    # ------------------------------------------------------------------ running
    def claim(self) -> LiveTrial | None:
        """A trial to run: one that was lost, else a new one; None when all have been claimed."""
        with self._claiming():
            trials = self.study.get_trials(deepcopy=False)
            lost = next((t for t in trials if self._is_lost(t)), None)
            if lost is None and len(trials) >= self.total:
                return None
            trial = self.study.ask() if lost is None else Trial(self.study, lost._trial_id)
            trial.set_user_attr(_RUNNER, self._runner)
            changes = self.space.suggest(trial)
            trial.set_user_attr(_CHANGES, json.dumps(changes))
            return LiveTrial(trial, changes) if lost is None else self._taken_over(trial, changes)

    def _taken_over(self, trial: Trial, changes: Changes) -> LiveTrial:
        """A lost trial: from its start, or, where its file is written, at its end."""
        kept = self._record(trial.number)
        if kept is None:
            log.warning("trial %d was lost with its process: it is run again", trial.number)
            return LiveTrial(trial, changes)
        steps = [StepResult.from_plain(step) for step in kept["steps"]]
        return LiveTrial(trial, changes, steps, str(kept["state"]), str(kept["reason"]))

    def _claiming(self) -> FileLock:
        path = self.folder / f".claim{LOCK_FILE}"
        return FileLock.take(path, f"the study {self.folder}", SourceError, "", _CLAIM_TIMEOUT_S)

    def _is_lost(self, trial: FrozenTrial) -> bool:
        if trial.state != TrialState.RUNNING:
            return False
        runner = trial.user_attrs.get(_RUNNER)
        if runner is None:  # killed between making it and signing it, both under the claim
            return True
        if runner == self._runner:
            return False
        if runner.partition("|")[0] != platform.node():
            return self._take_over
        return not self._lives(runner)

    def _lives(self, runner: str) -> bool:
        try:
            FileLock.take(self._lock_of(runner), "a search", SourceError, "").release()
        except SourceError:
            return True
        return False

    def _lock_of(self, runner: str) -> Path:
        return self.folder / "alive" / f"{runner.partition('|')[2]}{LOCK_FILE}"

    def add(self, live: LiveTrial, result: StepResult) -> bool:
        """Take a step's result; whether the trial has ended with it, pruned or complete."""
        live.steps.append(result)
        last = len(live.steps) == len(self.plan.steps)
        reported = self._report(live)
        if last:
            self._complete(live)
            return True
        if not reported or not live.trial.should_prune():
            return False
        self._end(live, "pruned")
        return True

    def _report(self, live: LiveTrial) -> bool:
        """Report what a pruner compares; whether it may be asked about it."""
        if self.plan.search.active_pruner == "none":
            return False
        # Halving compares what is known so far; the paired test compares step with step.
        paired = self.plan.search.active_pruner == "wilcoxon"
        (value,) = objective_values(self.plan.search, live.steps[-1:] if paired else live.steps)
        known = self.study.get_trials(deepcopy=False)[live.number].intermediate_values
        if max(known, default=0) > len(live.steps):  # before it was lost, it went on from here
            return False
        if value is not None and len(live.steps) not in known:  # a lost trial reported it already
            live.trial.report(value, len(live.steps))
        return value is not None

    def _complete(self, live: LiveTrial) -> None:
        search = self.plan.search
        values = objective_values(search, live.steps)
        undefined = [n for n, v in zip(search.objectives, values, strict=True) if v is None]
        if undefined:
            self.fail(live, f"{', '.join(undefined)} is undefined: there was nothing to judge")
            return
        self._end(live, "complete")

    def fail(self, live: LiveTrial, reason: str) -> None:
        """The candidate is impossible, and why."""
        self._end(live, "failed", reason)

    def _end(self, live: LiveTrial, ended: str, reason: str = "") -> None:
        """Write down what came of it; only then say that it is finished."""
        live.ended, live.reason = ended, reason
        steps = [step.to_plain() for step in live.steps]
        content = {"number": live.number, "state": ended, "changes": live.changes}
        write_json(self._file(live.number), {**content, "reason": reason, "steps": steps})
        self.settle(live)

    def settle(self, live: LiveTrial) -> None:
        """Say to the study how a trial ended whose file is written."""
        search = self.plan.search
        if live.ended == "complete":
            for name, excess in excesses(search, live.steps).items():
                live.trial.set_constraint(name, min(excess, 1e300))
            values = [v for v in objective_values(search, live.steps) if v is not None]
            self.study.tell(live.trial, values)
            return
        if live.reason:
            live.trial.set_user_attr(_REASON, live.reason)
        state = TrialState.PRUNED if live.ended == "pruned" else TrialState.FAIL
        self.study.tell(live.trial, state=state)

    def _file(self, number: int) -> Path:
        return self.folder / TRIALS / f"{number:05d}.json"

    # ------------------------------------------------------------------ reading
    def counts(self) -> dict[str, int]:
        """Trials by state: complete, pruned, failed, running."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        found = dict.fromkeys(("complete", "pruned", "failed", "running"), 0)
        for trial in self.study.get_trials(deepcopy=False):
            found[names.get(trial.state.name, "running")] += 1
        return found

    def done(self) -> list[DoneTrial]:
        """Every finished trial, by number."""
        trials = self.study.get_trials(deepcopy=False, states=_FINISHED)
        return [self._done(trial) for trial in trials]

    def read(self, number: int) -> DoneTrial:
        """A finished trial by its number."""
        return self._done(self.study.get_trials(deepcopy=False)[number])

    def _done(self, trial: FrozenTrial) -> DoneTrial:
        state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
        steps = self._steps(trial.number)
        limits = excesses(self.plan.search, steps) if steps else {}
        begun, ended = trial.datetime_start, trial.datetime_complete
        return DoneTrial(
            number=trial.number,
            state=state,
            changes=self.space.changes(trial.params),
            values=None if trial.values is None else tuple(trial.values),
            measures=all_values(steps) if steps else {},
            feasible=all(excess <= 0 for excess in limits.values()),
            steps=steps,
            reason=str(trial.user_attrs.get(_REASON, "")),
            seconds=(ended - begun).total_seconds() if begun and ended else 0.0,
        )

    def importance(self) -> dict[str, float]:
        """Key -> how much it decides whether a trial is among the best; {} of too few trials.

        Source: PED-ANOVA (Watanabe et al. 2023), by Optuna, for the first objective.
        """
        trials = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(trials) < _FEWEST_FOR_IMPORTANCE:
            return {}
        sign = -1 if MEASURES[self.plan.search.objectives[0]].higher else 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that low is taken for good, which the sign sees to
            found = get_param_importances(
                self.study,
                evaluator=PedAnovaImportanceEvaluator(),
                target=lambda trial: sign * trial.values[0],
            )
        return {key: float(value) for key, value in found.items()}

    def _steps(self, number: int) -> list[StepResult]:
        """Results of a trial's steps; [] where another machine kept them."""
        kept = self._record(number)
        return [] if kept is None else [StepResult.from_plain(step) for step in kept["steps"]]

    def _record(self, number: int) -> dict[str, Any] | None:
        """What a trial's file says; None where there is none."""
        path = self._file(number)
        if not path.is_file():
            return None
        with reading(path, "record of a trial", SourceError, "Delete it: the trial stays counted"):
            return read_object(path)

    # ------------------------------------------------------------------ identity
    def _require_same(self) -> None:
        """Refuse to go on with a study of another search. Raises RecipeError, naming the change."""
        mine = _identity(self.plan, self.space)
        with self._claiming():
            kept = self.study.user_attrs.get(_ABOUT)
            if kept is None:
                self.study.set_user_attr(_ABOUT, json.dumps(mine))
                return
        before = json.loads(kept)
        changed = [name for name in mine if before.get(name) != mine[name]]
        if changed:
            raise RecipeError(
                f"the study in {self.folder} is of another search: {', '.join(changed)} differ."
                " Give this one another --out, or begin anew with --fresh"
            )


def _identity(plan: Plan, space: Space) -> dict[str, Any]:
    """What a study's trials have in common; more of them may be asked for later."""
    search = plan.search.model_dump(mode="json", exclude={"trials"})
    return {
        "the recipe": to_plain(plan.recipe),
        "[search]": search,
        "[space]": space.to_plain(),
        "the candles": plan.candles_sha256,
    }


def best_of(trials: Sequence[DoneTrial], plan: Plan) -> DoneTrial | None:
    """The trial that a search chooses; None where none was completed within the constraints.

    With one objective, the best. With several, the point of the front nearest to the best value of
    each, every objective scaled by its range over the front.
    """
    front = front_of(trials, plan)
    if not front:
        return None
    losses = [_losses(trial, plan) for trial in front]
    low = [min(column) for column in zip(*losses, strict=True)]
    width = [max(column) - min(column) for column in zip(*losses, strict=True)]

    def distance(loss: tuple[float, ...]) -> float:
        scaled = ((v - b) / w if w > 0 else 0.0 for v, b, w in zip(loss, low, width, strict=True))
        return sum(part * part for part in scaled)

    return min(zip(front, losses, strict=True), key=lambda pair: distance(pair[1]))[0]


def front_of(trials: Sequence[DoneTrial], plan: Plan) -> list[DoneTrial]:
    """Completed trials within the constraints that no other beats in every objective."""
    usable = [t for t in trials if t.state == "complete" and t.feasible and t.values is not None]
    losses = {trial.number: _losses(trial, plan) for trial in usable}

    def beaten(trial: DoneTrial) -> bool:
        mine = losses[trial.number]
        return any(
            other != mine and all(o <= m for o, m in zip(other, mine, strict=True))
            for other in losses.values()
        )

    return [trial for trial in usable if not beaten(trial)]


def _losses(trial: DoneTrial, plan: Plan) -> tuple[float, ...]:
    """Objectives, each turned so that less is better."""
    assert trial.values is not None
    names = plan.search.objectives
    return tuple(-v if MEASURES[n].higher else v for n, v in zip(names, trial.values, strict=True))


def refused(result: Mapping[str, Any]) -> str | None:
    """Why a step's candidate is impossible, or None."""
    reason = result.get("refused")
    return None if reason is None else str(reason)
