"""The page of a search: what it found and what that is worth, first; then how it got there."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from cppncripto_strategy.reports.blocks import Cards, Chart, Code, Fold, Section, Table, Text
from cppncripto_strategy.reports.pages import write_page
from cppncripto_strategy.reports.values import number, percent, whole
from cppncripto_strategy.tuning.figures import (
    front_figure,
    heat_figure,
    history_figure,
    importance_figure,
    judged,
    parallel_figure,
    short,
)
from cppncripto_strategy.tuning.found import Found
from cppncripto_strategy.tuning.measures import MEASURES, all_values
from cppncripto_strategy.tuning.plateaus import plateaus
from cppncripto_strategy.tuning.space import candidate_toml
from cppncripto_strategy.tuning.study import DoneTrial
from cppncripto_strategy.tuning.words import compared, how_far, measure_text, windows_text

# Recipes to copy are written out for so many trials, the best first; the others have files.
_LISTED = 100


def write_tuning_page(path: Path, found: Found, name: str) -> None:
    """Write tuning.html: one file, no network."""
    sections = [
        *_verdict(found),
        Section("", _cards(found), kind="bare"),
        *_chosen(found),
        *_charts(found),
        *_plateaus(found),
        _trials(found),
    ]
    write_page(path, f"Search over {name}", sections, subtitle=windows_text(found))


def _verdict(found: Found) -> list[Section]:
    """What the search is worth; where it was not judged, why."""
    worth = found.worth
    if not worth:
        text = "The sealed days are closed: what the search found was not put to a test yet."
        return [Section("Not judged yet", Text(text), kind="verdict")]
    kind = "verdict good" if worth["edge"] else "verdict"
    detail: list[Any] = [Text(str(line)) for line in worth["detail"]]
    proofs = [(claim, "yes" if holds else "no") for claim, holds in worth["proofs"]]
    detail.append(Fold("What was asked for", Table(("", "holds"), proofs, text=(0,))))
    return [Section(str(worth["headline"]), detail, kind=kind)]


def _cards(found: Found) -> Cards:
    pulse, best = found.pulse, found.best
    name = found.plan.search.objectives[0]
    untuned = all_values(found.untuned).get(name) if found.untuned else None
    value = None if best is None or best.values is None else best.values[0]
    title = MEASURES[name].title
    return Cards(
        [
            (f"best {title}, inner windows", measure_text(name, value)),
            (f"untuned {title}", measure_text(name, untuned)),
            ("trials", f"{whole(pulse.done)} of {whole(pulse.total)}"),
            ("of them pruned", percent(pulse.pruned_share, 0)),
            ("trials a minute", number(pulse.per_minute, 1)),
            ("keys that vary", whole(len(found.space))),
        ]
    )


def _chosen(found: Found) -> list[Section]:
    best = found.best
    if best is None:
        text = "No candidate was judged to the end within the constraints."
        return [Section("Nothing chosen", [Text(how_far(found)), Text(text)])]
    head, rows = compared(found)
    content: list[Any] = [Table(head, rows), Code(candidate_toml(best.changes))]
    if found.sealed is not None:
        content.insert(1, Text(found.sealed.opening.sentence()))
    return [Section(f"Chosen: trial {best.number}", content, note=how_far(found))]


def _charts(found: Found) -> list[Section]:
    """History, front, parallel coordinates, importance and heat map, where there are trials."""
    trials, names = judged(found), found.plan.search.objectives
    if len(trials) < 2:
        return []
    note = "The dotted line is the recipe as it was. A pruned trial is drawn at what it showed when"
    sections = [
        Section(
            "Trial by trial",
            Chart(history_figure(found), "history"),
            note=f"{note} it was stopped, on fewer windows.",
        )
    ]
    for first, second in combinations(names, 2):
        title = f"Front: {MEASURES[first].title} and {MEASURES[second].title}"
        figure = front_figure(found, first, second)
        sections.append(Section(title, Chart(figure, f"front-{first}-{second}")))
    sections.append(
        Section(
            "Values together",
            Chart(parallel_figure(found), "parallel"),
            note="A line is a trial. Drag along an axis to keep only the lines that pass there.",
        )
    )
    if found.importance:
        text = "How much each key decides whether a trial is among the best tenth (PED-ANOVA)."
        figure = importance_figure(found.importance)
        sections.append(Section("What matters", Chart(figure, "importance"), note=text))
    if len(found.space) > 1:
        text = "Mean of the first objective; choose two keys. Cells without a trial are empty."
        sections.append(Section("Two keys", Chart(heat_figure(found), "heat"), note=text))
    return sections


def _plateaus(found: Found) -> list[Section]:
    clusters = plateaus(found.trials, found.space, found.plan)
    if not clusters:
        return []
    name = found.plan.search.objectives[0]
    keys = found.space.keys
    head = ["Trials", "Best", "Its value", "Its nearest neighbours", *(k for k in keys)]
    rows = [
        [
            str(len(cluster.members)),
            f"trial {cluster.best}",
            measure_text(name, cluster.value),
            measure_text(name, cluster.neighbours),
            *(cluster.ranges[key] for key in keys),
        ]
        for cluster in clusters
    ]
    note = (
        "The best quarter of the trials, joined where they lie near each other. Trust a setting"
        " whose neighbours do nearly as well; a peak that stands alone is likely luck."
    )
    return [Section("Plateaus", Table(head, rows), note=note)]


def _trials(found: Found) -> Section:
    """Every trial, the best first, each with its lines to copy."""
    name = found.plan.search.objectives[0]
    order = {"complete": 0, "pruned": 1, "failed": 2}
    sign = -1 if MEASURES[name].higher else 1

    def rank(trial: DoneTrial) -> tuple[int, float, int]:
        value = trial.values[0] if trial.values else 0.0
        return order[trial.state], sign * value, trial.number

    ranked = sorted(found.trials, key=rank)
    folds = [Fold(_line(trial, found), Code(_copy(trial))) for trial in ranked[:_LISTED]]
    note = "Open one for the lines that make a recipe of it; --adopt N writes the whole recipe."
    if len(ranked) > _LISTED:
        note += f" The best {_LISTED} of {len(ranked)} are here; trials/ has a file of each."
    return Section("Trials", folds or Text("None has finished."), note=note)


def _line(trial: DoneTrial, found: Found) -> str:
    names = found.plan.search.objectives
    values = ", ".join(measure_text(n, trial.measures.get(n)) for n in names)
    state = {"complete": "", "pruned": f", pruned after {len(trial.steps)}", "failed": ", failed"}
    keys = ", ".join(f"{k.rpartition('.')[2]} {short(v)}" for k, v in trial.changes.items())
    return f"{trial.number}: {values or '—'}{state[trial.state]} ({keys})"


def _copy(trial: DoneTrial) -> str:
    reason = f"# failed: {trial.reason}\n" if trial.reason else ""
    return reason + candidate_toml(trial.changes)
