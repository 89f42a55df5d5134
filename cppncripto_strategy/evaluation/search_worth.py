"""What a search over recipes is worth: is the best of many trials more than luck?

A search judges its trials on inner days and opens the sealed days once, for the recipe it chose.
Two questions are asked, and each is answered twice, on the inner days with all trials counted and
on the sealed days, which nothing was chosen on:

- Is there an edge? Inner: StepM of all trials against cash names the chosen one, or its deflated
  Sharpe ratio does. (The latter takes what trials really differ in for luck: a search over good and
  bad settings spreads their Sharpe ratios, and the best has to beat that spread.) Sealed: the
  probability that the true Sharpe ratio is above 0; each further opening of the sealed days divides
  what may be wrong by one more.
- Is it the search's doing? Inner: SPA of all trials against the untuned recipe. Sealed: the
  difference of the Sharpe ratios, chosen less untuned, with its interval.

"Nothing found" is the verdict wherever the first question is not answered twice with yes. Beside
it, as measures and not as judges: the probability of backtest overfitting, the Sharpe ratios that
choosing earns over combinatorial paths, the gap between inner and sealed, the minimum backtest
length.

The deflation takes the raw number of trials. The variance of the trials' Sharpe ratios, which it
takes too, is already smaller for trials that resemble each other, so counting fewer of them would
discount the likeness twice; the value for the effective number stands beside it.

Left out: the search itself, and what it may look at (`tuning`).

Sources: as `statistics`, `superiority`, `cross_paths` and `many_trials`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.errors import AccountError
from cppncripto_strategy.evaluation.cross_paths import (
    Folds,
    PathSpread,
    selection_paths,
    spread_of,
)
from cppncripto_strategy.evaluation.many_trials import (
    TrialCount,
    count_trials,
    minimum_backtest_days,
)
from cppncripto_strategy.evaluation.returns import daily_sharpe, sharpe_ratio
from cppncripto_strategy.evaluation.statistics import (
    Estimate,
    deflated_sharpe,
    overfitting_probability,
    probabilistic_sharpe,
    sharpe_estimate,
    sharpe_gap,
)
from cppncripto_strategy.evaluation.superiority import (
    CASH,
    MIN_TEST_DAYS,
    SIZE,
    Superiority,
    superiority,
)
from cppncripto_strategy.evaluation.undefined import Refusal
from cppncripto_strategy.results import to_plain

UNTUNED = "the untuned recipe"
PBO_BLOCKS = 8
SELECTION_FOLDS = Folds(groups=8, tested=2)


@dataclass(frozen=True, eq=False)
class SearchReturns:
    """Daily net returns that a search left, as simple returns of UTC days.

    Parameters
    ----------
    inner : float array (trials, inner days): every trial that was judged, in the order in which it
        began, pruned and failed ones too; NaN on days that a trial was not judged on.
    chosen : number of the chosen trial's row; its days are all known.
    untuned_inner : float array (inner days,) of the recipe as it was before the search.
    sealed, untuned_sealed : float arrays (sealed days,) of the chosen and the untuned recipe.
    front : numbers of further rows to judge: the rest of a front of several objectives.
    openings : how often the sealed days were opened, this time included.
    """

    inner: FloatArray
    chosen: int
    untuned_inner: FloatArray
    sealed: FloatArray
    untuned_sealed: FloatArray
    front: Sequence[int] = ()
    openings: int = 1

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class TrialLuck:
    """How much of one trial's inner Sharpe ratio may be luck.

    Parameters
    ----------
    trial : number of its row. sharpe : annual.
    probabilistic : probability that the true Sharpe ratio is above 0.
    deflated, deflated_effective : that it is above what the best of all trials would show by luck,
        with all trials counted and with the effective number of them.
    minimum_days : days below which the best of all trials shows this Sharpe ratio by luck alone.
    """

    trial: int
    sharpe: float | None
    probabilistic: float | None
    deflated: float | None
    deflated_effective: float | None
    minimum_days: float | None


@dataclass(frozen=True)
class SearchWorth:
    """The verdict on a search, and every number it rests on.

    Parameters
    ----------
    edge : whether the chosen recipe has an edge, on both spans; False is "nothing found".
    improved : whether it is better than the untuned recipe, on both spans.
    headline, detail : the verdict in a sentence, and the sentences below it.
    proofs : (what was asked for, whether it holds), the four of them.
    count : how many trials there were. complete : trials judged on every inner day.
    inner_days, sealed_days, openings : as given.
    chosen, front : of the trials named.
    inner, sealed, untuned_inner, untuned_sealed : annual Sharpe ratios with 95 % intervals.
    sealed_certainty : probability that the true Sharpe ratio on the sealed days is above 0.
    gain : on the sealed days, Sharpe ratio of the chosen recipe less that of the untuned one.
    shrinkage : of the chosen recipe, inner Sharpe ratio less the sealed one.
    overfitting : probability of backtest overfitting among the complete trials, 0 to 1.
    against_cash, against_untuned : SPA and StepM of the complete trials ("trial 3") against an
        account in cash, and against the untuned recipe.
    paths : Sharpe ratios of what choosing earns on days that it did not choose on.

    A test that could not be made is a Refusal, with its reason.
    """

    edge: bool
    improved: bool
    headline: str
    detail: tuple[str, ...]
    proofs: tuple[tuple[str, bool], ...]
    count: TrialCount
    complete: int
    inner_days: int
    sealed_days: int
    openings: int
    chosen: TrialLuck
    front: tuple[TrialLuck, ...]
    inner: Estimate
    sealed: Estimate
    untuned_inner: Estimate
    untuned_sealed: Estimate
    sealed_certainty: float | None
    gain: Estimate
    shrinkage: float | None
    overfitting: float | None
    against_cash: Superiority | Refusal
    against_untuned: Superiority | Refusal
    paths: PathSpread | Refusal

    @property
    def found(self) -> bool:
        """Whether the search may be said to have found anything."""
        return self.edge

    def to_plain(self) -> dict[str, Any]:
        """Plain nested values for JSON; null where undefined."""
        plain: dict[str, Any] = to_plain(asdict(self))
        plain["count"]["effective"] = self.count.effective
        return plain


def search_worth(returns: SearchReturns, seed: int = 0, resamples: int = 1_000) -> SearchWorth:
    """What the search that left these returns is worth.

    Parameters
    ----------
    seed : of the resampling of days; the same seed gives the same verdict, bit for bit.
    resamples : of days, for intervals and SPA.

    Raises
    ------
    AccountError
        Made by `SearchReturns`: arrays that do not fit together, or a chosen trial that was pruned.
    """
    sharpes = [_known_sharpe(row) for row in returns.inner]
    count = count_trials(sharpes, returns.inner)
    spread = _variance(sharpes)
    complete = np.flatnonzero(np.isfinite(returns.inner).all(axis=1))
    rows = returns.inner[complete]
    chosen = returns.inner[returns.chosen]
    names = [f"trial {number}" for number in complete]
    cash = np.zeros_like(returns.untuned_inner)
    paths = selection_paths(rows, SELECTION_FOLDS)
    measured: dict[str, Any] = {
        "count": count,
        "complete": len(complete),
        "inner_days": returns.inner.shape[1],
        "sealed_days": len(returns.sealed),
        "openings": returns.openings,
        "chosen": _luck(returns, returns.chosen, count, spread),
        "front": tuple(_luck(returns, number, count, spread) for number in returns.front),
        "inner": sharpe_estimate(chosen, seed, resamples),
        "sealed": sharpe_estimate(returns.sealed, seed, resamples),
        "untuned_inner": sharpe_estimate(returns.untuned_inner, seed, resamples),
        "untuned_sealed": sharpe_estimate(returns.untuned_sealed, seed, resamples),
        "sealed_certainty": probabilistic_sharpe(returns.sealed),
        "gain": sharpe_gap(returns.sealed, returns.untuned_sealed, seed, resamples),
        "shrinkage": _difference(sharpe_ratio(chosen), sharpe_ratio(returns.sealed)),
        "overfitting": overfitting_probability(rows, PBO_BLOCKS),
        "against_cash": superiority(rows, names, cash, CASH, seed, resamples),
        "against_untuned": superiority(
            rows, names, returns.untuned_inner, UNTUNED, seed, resamples
        ),
        "paths": paths if isinstance(paths, Refusal) else spread_of(paths, SELECTION_FOLDS),
    }
    return _judged(measured)


def _known_sharpe(row: FloatArray) -> float | None:
    return daily_sharpe(row[np.isfinite(row)])


def _variance(sharpes: Sequence[float | None]) -> float:
    known = [value for value in sharpes if value is not None]
    return float(np.var(known, ddof=1)) if len(known) > 1 else 0.0


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _luck(returns: SearchReturns, trial: int, count: TrialCount, spread: float) -> TrialLuck:
    row = returns.inner[trial]
    known = row[np.isfinite(row)]
    sharpe = sharpe_ratio(known)
    return TrialLuck(
        trial=trial,
        sharpe=sharpe,
        probabilistic=probabilistic_sharpe(known),
        deflated=deflated_sharpe(known, count.raw, spread),
        deflated_effective=deflated_sharpe(known, count.effective, spread),
        minimum_days=minimum_backtest_days(count.raw, sharpe),
    )


# ---------------------------------------------------------------- the verdict


def _judged(found: dict[str, Any]) -> SearchWorth:
    """The verdict on what was measured."""
    proofs = _proofs(found)
    inner_edge, sealed_edge, inner_gain, sealed_gain = (holds for _, holds in proofs)
    edge, improved = inner_edge and sealed_edge, inner_gain and sealed_gain
    return SearchWorth(
        edge=edge,
        improved=improved,
        headline=_headline(edge, improved, found),
        detail=tuple(_detail(found)),
        proofs=proofs,
        **found,
    )


def _proofs(found: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    """What is asked for, and whether it holds: edge inner, edge sealed, gain inner, gain sealed."""
    against, gain, certainty = found["against_untuned"], found["gain"], found["sealed_certainty"]
    needed = 1 - SIZE / found["openings"]
    enough = found["sealed_days"] >= MIN_TEST_DAYS
    return (
        (
            f"on the inner days the chosen trial earns more than the luck of the best of"
            f" {found['count'].raw:,} explains (StepM against cash, or the deflated Sharpe ratio,"
            f" at {100 * SIZE:g} %)",
            _more_than_luck(found),
        ),
        (
            f"on at least {MIN_TEST_DAYS} sealed days it is above 0 with {100 * needed:.3g} %"
            " probability",
            enough and certainty is not None and certainty >= needed,
        ),
        (
            f"on the inner days a trial beats {UNTUNED}, all trials counted (SPA at"
            f" {100 * SIZE:g} %)",
            isinstance(against, Superiority) and against.found,
        ),
        (
            f"on the sealed days the chosen recipe beats {UNTUNED}: the 95 % interval of the"
            " difference lies above 0",
            enough and gain.low is not None and gain.low > 0,
        ),
    )


def _more_than_luck(found: dict[str, Any]) -> bool:
    chosen, cash = found["chosen"], found["against_cash"]
    deflated = chosen.deflated is not None and chosen.deflated >= 1 - SIZE
    return deflated or (isinstance(cash, Superiority) and f"trial {chosen.trial}" in cash.superior)


def _headline(edge: bool, improved: bool, found: dict[str, Any]) -> str:
    trials = f"{found['count'].raw:,} trials"
    if not edge:
        return f"Nothing found: the best of {trials} is not shown to be more than luck"
    if not improved:
        return f"An edge, but {trials} are not shown to have improved on {UNTUNED}"
    return f"Found: the best of {trials} earns more than luck, and more than {UNTUNED}"


def _detail(found: dict[str, Any]) -> list[str]:
    """The numbers behind the headline, in sentences."""
    count, chosen = found["count"], found["chosen"]
    sentences = [
        f"The chosen recipe's Sharpe ratio was {_number(chosen.sharpe)} on {found['inner_days']:,}"
        f" inner days and {_number(found['sealed'].value)} on {found['sealed_days']:,} sealed days;"
        f" {UNTUNED}'s was {_number(found['untuned_inner'].value)} and"
        f" {_number(found['untuned_sealed'].value)}.",
        f"{count.raw:,} trials, about {count.effective:,} of them independent: the chosen Sharpe"
        f" ratio is more than the luck of the best with a probability of"
        f" {_percent(chosen.deflated)} ({_percent(chosen.deflated_effective)} with the independent"
        " ones counted).",
    ]
    if chosen.minimum_days is not None:
        sentences.append(
            f"The best of so many shows this Sharpe ratio by luck alone on records shorter than"
            f" {chosen.minimum_days:,.0f} days."
        )
    if found["overfitting"] is not None:
        sentences.append(
            "The best of one half of the days falls below the median on the other half with a"
            f" probability of {_percent(found['overfitting'])}."
        )
    sentences += [_against(found[name]) for name in ("against_cash", "against_untuned")]
    sentences.append(_paths(found["paths"]))
    if found["openings"] > 1:
        sentences.append(
            f"The sealed days were opened {found['openings']} times, so they are asked for more."
        )
    return sentences


def _against(found: Superiority | Refusal) -> str:
    if isinstance(found, Refusal):
        return f"Trials were not compared: {found.reason}."
    better = len(found.superior)
    words = "no trial is" if not better else "1 trial is" if better == 1 else f"{better} trials are"
    return (
        f"Against {found.benchmark} {words} better with all of them counted (SPA p ="
        f" {found.p_value:.2g})."
    )


def _paths(found: PathSpread | Refusal) -> str:
    if isinstance(found, Refusal):
        return f"Choosing was not judged on other days: {found.reason}."
    return (
        f"Choosing on some days and trading on others, over {len(found.sharpes)} paths, earned a"
        f" median Sharpe ratio of {_number(found.median)}; {found.losing} of them earned nothing."
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "an undefined share" if value is None else f"{100 * value:.1f} %"


def _check(returns: SearchReturns) -> None:
    """Refuse returns that do not fit together. Raises AccountError, naming what does not."""
    inner, sealed = np.asarray(returns.inner), np.asarray(returns.sealed)
    if inner.ndim != 2 or not inner.size:
        raise AccountError(f"inner returns must be (trials, days), they are {inner.shape}")
    for name, mine, theirs in (
        ("inner", inner.shape[1:], np.shape(returns.untuned_inner)),
        ("sealed", sealed.shape, np.shape(returns.untuned_sealed)),
    ):
        if mine != theirs:
            raise AccountError(
                f"the untuned recipe's {name} returns are of shape {theirs}, those of the search of"
                f" {mine}: judge both on the same days"
            )
    for trial in (returns.chosen, *returns.front):
        if not 0 <= trial < len(inner):
            raise AccountError(f"there is no trial {trial}: {len(inner)} are given, from 0")
    if not np.isfinite(inner[returns.chosen]).all():
        raise AccountError(
            f"the chosen trial {returns.chosen} was not judged on all inner days: choose among"
            " those that were"
        )
    if returns.openings < 1:
        raise AccountError(f"openings is {returns.openings}: count this one, at least 1")
