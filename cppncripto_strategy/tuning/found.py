"""What a search leaves: its trials, the recipe it chose, and what the sealed days said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cppncripto_strategy.tuning.measures import StepResult, all_values
from cppncripto_strategy.tuning.plan import Plan
from cppncripto_strategy.tuning.sealed import SealedResult
from cppncripto_strategy.tuning.space import Space, candidate_toml
from cppncripto_strategy.tuning.study import DoneTrial, best_of, front_of


@dataclass(frozen=True)
class Pulse:
    """How a search gets on.

    Parameters
    ----------
    total, complete, pruned, failed, running : trials; those of other processes among them.
    best : the best trial so far, or None.
    per_minute : trials that this process finished a minute, since it began.
    left_s : seconds until the last trial at the present pace; None before the first.
    """

    total: int
    complete: int
    pruned: int
    failed: int
    running: int
    best: DoneTrial | None
    per_minute: float
    left_s: float | None

    @property
    def done(self) -> int:
        """Finished trials."""
        return self.complete + self.pruned + self.failed

    @property
    def pruned_share(self) -> float:
        """Of the finished trials, 0 to 1."""
        return self.pruned / self.done if self.done else 0.0


@dataclass(frozen=True, eq=False)
class Found:
    """What a search left.

    Parameters
    ----------
    trials : finished ones, by number.
    untuned : steps of the recipe as it was, on the same windows.
    pulse : how far it came.
    seconds : of this call, wall time.
    sealed : what the sealed days showed, or None where they are closed.
    importance : key -> PED-ANOVA's importance for the first objective; {} of too few trials.
    worth : what the search is worth, in numbers and words; {} where it was not judged.
    interrupted : the signal that ended it before its last trial, or None.
    """

    plan: Plan
    space: Space
    trials: list[DoneTrial]
    untuned: list[StepResult]
    pulse: Pulse
    seconds: float
    sealed: SealedResult | None = None
    importance: dict[str, float] = field(default_factory=dict)
    worth: Mapping[str, Any] = field(default_factory=dict)
    interrupted: KeyboardInterrupt | None = None

    @property
    def best(self) -> DoneTrial | None:
        """The chosen trial, or None."""
        return best_of(self.trials, self.plan)

    @property
    def front(self) -> list[DoneTrial]:
        """Trials that no other beats in every objective."""
        return front_of(self.trials, self.plan)

    def summary(self) -> dict[str, Any]:
        """Plain values: for `--json` and for search.json."""
        best, pulse = self.best, self.pulse
        return {
            "trials": {
                name: getattr(pulse, name)
                for name in ("total", "complete", "pruned", "failed", "running")
            },
            "objectives": list(self.plan.search.objectives),
            "windows": [[s.start_ms, s.end_ms] for s in self.plan.windows],
            "sealed_span": [self.plan.sealed.start_ms, self.plan.sealed.end_ms],
            "best": None if best is None else _trial(best),
            "front": [_trial(trial) for trial in self.front],
            "untuned": all_values(self.untuned) if self.untuned else None,
            "sealed": None if self.sealed is None else self.sealed.to_plain(),
            "importance": self.importance,
            "worth": dict(self.worth),
            "train_s": sum(step.train_s for trial in self.trials for step in trial.steps),
            "seconds": self.seconds,
            "trials_per_minute": pulse.per_minute,
            "interrupted": self.interrupted is not None,
        }


def _trial(trial: DoneTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "values": None if trial.values is None else list(trial.values),
        "measures": trial.measures,
        "changes": trial.changes,
        "recipe": candidate_toml(trial.changes),
    }
