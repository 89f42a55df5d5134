"""The answer to each experiment's question, from a comparison of two arms.

An answer is "met" only where the whole interval says so; everything else is "not shown".
"""

from __future__ import annotations

from dataclasses import dataclass

from cppncripto_strategy.evaluation.statistics import Estimate
from cppncripto_strategy.experiments.comparison import SIGNIFICANT, Comparison

# What E1's criterion asks of macro, as a fraction of hit ratio.
MACRO_GAIN = 0.05
EARNS = "earns anything at all (Sharpe above 0)"


@dataclass(frozen=True)
class Verdict:
    """The answer to an experiment's question.

    Parameters
    ----------
    met : whether the description's criterion is met, and surely.
    headline : the answer in one sentence. proofs : what was asked for and whether it holds.
    """

    met: bool
    headline: str
    proofs: tuple[tuple[str, bool], ...]


def points(estimate: Estimate, unit: str = "points", scale: float = 100.0) -> str:
    """A difference in words: "+5.2 points [3.1, 7.4]"."""
    if estimate.value is None:
        return "undefined"
    text = f"{scale * estimate.value:+.2f} {unit}".strip()
    if estimate.low is None or estimate.high is None:
        return f"{text} (no interval)"
    return f"{text} [{scale * estimate.low:+.2f}, {scale * estimate.high:+.2f}]"


def above(estimate: Estimate) -> bool:
    """Whether the whole interval lies above 0."""
    return estimate.low is not None and estimate.low > 0


def below(estimate: Estimate) -> bool:
    """Whether the whole interval lies below 0."""
    return estimate.high is not None and estimate.high < 0


def judge_macro(found: Comparison, gain_wanted: float = MACRO_GAIN) -> Verdict:
    """E1: does macro add `gain_wanted` of hit ratio?"""
    value = found.hit_difference.value
    reaches = value is not None and value >= gain_wanted
    proofs = (
        ("the interval of the hit difference lies above 0", above(found.hit_difference)),
        ("Diebold-Mariano favours macro at 5 %", _favours_a(found)),
        (f"the gain is at least {100 * gain_wanted:g} points", reaches),
    )
    gap = points(found.hit_difference)
    if found.hit_proved and reaches:
        headline = f"Macro helps, as much as hoped: {gap} of hit ratio."
    elif found.hit_proved:
        headline = f"Macro helps, less than the {100 * gain_wanted:g} points hoped for: {gap}."
    elif below(found.hit_difference):
        headline = f"Macro hurts: {gap} of hit ratio."
    else:
        headline = f"No gain from macro is shown: {gap} of hit ratio."
    return Verdict(found.hit_proved and reaches, headline, proofs)


def judge_window(found: Comparison, sharpe_a: float | None) -> Verdict:
    """E3: does the longer short window earn a higher return for its risk?

    Parameters
    ----------
    sharpe_a : Sharpe ratio of the longer window itself. Where all lose, the one that trades less
        loses less: that is a saving of fees and no sign of a better decision.
    """
    better, earns = above(found.sharpe_difference), _earns(sharpe_a)
    proofs = (
        ("the interval of the Sharpe difference lies above 0", better),
        (f"{found.a} {EARNS}", earns),
        ("the interval of the hit difference lies above 0", above(found.hit_difference)),
        ("Diebold-Mariano favours it at 5 %", _favours_a(found)),
    )
    met = better and earns
    sharpe = points(found.sharpe_difference, "Sharpe", 1.0)
    hit = points(found.hit_difference)
    if met:
        headline = f"{found.a} earns more for its risk than {found.b}: {sharpe}; hits {hit}."
    elif found.hit_proved:
        headline = (
            f"{found.a} hits more often than {found.b} ({hit}), but no higher return for its risk"
            f" is shown: {sharpe}."
        )
    elif better:
        headline = f"{found.a} only loses less than {found.b}: {sharpe}; hits {hit}."
    elif below(found.hit_difference) or below(found.sharpe_difference):
        headline = f"{found.a} is worse than {found.b}: {sharpe}; hits {hit}."
    else:
        headline = f"No difference between {found.a} and {found.b} is shown: {sharpe}; hits {hit}."
    return Verdict(met, headline, proofs)


def judge_objective(
    found: Comparison, sharpe_a: float | None, error_a: float | None, error_b: float | None
) -> Verdict:
    """E2: does objective a give a better Sharpe ratio and a lower reconstruction loss?

    Parameters
    ----------
    sharpe_a : Sharpe ratio of objective a itself, see `judge_window`.
    error_a, error_b : error of a ridge that reconstructs the days from the frozen embedding, the
        one measure of reconstruction that objectives without a decoder have, too.
    """
    lower = error_a is not None and error_b is not None and error_a < error_b
    better, earns = above(found.sharpe_difference), _earns(sharpe_a)
    proofs = (
        ("the interval of the Sharpe difference lies above 0", better),
        (f"{found.a} {EARNS}", earns),
        ("the reconstruction error is lower", lower),
        ("the interval of the hit difference lies above 0", above(found.hit_difference)),
    )
    met = better and earns and lower
    sharpe = points(found.sharpe_difference, "Sharpe", 1.0)
    errors = (
        "reconstruction was not measured"
        if error_a is None or error_b is None
        else f"reconstruction error {error_a:.3f} against {error_b:.3f}"
    )
    word = "beats" if met else "is not shown to beat"
    return Verdict(met, f"{found.a} {word} {found.b}: {sharpe}; {errors}.", proofs)


def judge_threshold(found: Comparison, sharpe_a: float | None) -> Verdict:
    """E4: does threshold a bring a lower drawdown at no loss of precision?

    Parameters
    ----------
    sharpe_a : Sharpe ratio under threshold a itself, see `judge_window`.
    """
    lower, earns = below(found.drawdown_difference), _earns(sharpe_a)
    no_loss = not below(found.precision_difference)
    proofs = (
        ("the interval of the drawdown difference lies below 0", lower),
        (f"{found.a} {EARNS}", earns),
        ("precision is not shown to be lower", no_loss),
    )
    met = lower and earns and no_loss
    words = (
        f"drawdown {points(found.drawdown_difference)}, precision"
        f" {points(found.precision_difference)}"
    )
    if met:
        headline = f"The {found.a} threshold draws down less than the {found.b} one: {words}."
    elif lower and no_loss:
        headline = f"The {found.a} threshold only loses less than the {found.b} one: {words}."
    elif above(found.drawdown_difference):
        headline = f"The {found.a} threshold draws down more than the {found.b} one: {words}."
    else:
        headline = f"No gain in drawdown is shown, {found.a} against {found.b}: {words}."
    return Verdict(met, headline, proofs)


def _earns(sharpe: float | None) -> bool:
    return sharpe is not None and sharpe > 0


def _favours_a(found: Comparison) -> bool:
    test = found.diebold_mariano
    return test is not None and test.statistic < 0 and test.p_value < SIGNIFICANT
