"""The page of an evolution: the front, the run, the champion's CPPN and its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from cppncripto_strategy.evolution.evolved import Evolved
from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.models.hyperneat.archive import PERIOD_EDGES, REACH_EDGES, SHAPE, Archive
from cppncripto_strategy.models.hyperneat.decoding import decode
from cppncripto_strategy.models.hyperneat.evolution import Generation
from cppncripto_strategy.models.hyperneat.front import Candidate
from cppncripto_strategy.models.hyperneat.genome import COORDINATES, GATED_OUTPUTS, Genome
from cppncripto_strategy.models.hyperneat.sight import impulse_response, spectrum
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.reports.blocks import Cards, Chart, Code, Section, Table
from cppncripto_strategy.reports.charts import BUY, HOLD, SELL, STRATEGY, WITHOUT, style
from cppncripto_strategy.reports.pages import write_page
from cppncripto_strategy.reports.values import number, percent, whole

NOT_EXPRESSED = "#e3e7ec"


def write_evolution_page(path: Path, result: Evolved, name: str) -> None:
    """Write evolution.html: one file, no network."""
    span = f"{ms_to_utc(result.from_ms)[:10]} to {ms_to_utc(result.until_ms)[:10]}"
    sections = [
        Section("", _cards(result), kind="bare"),
        *_charts(result),
        _transfers(result),
        Section(
            "Use it",
            Code(recipe_lines(path.with_name("champion.json"))),
            note="These lines of a recipe train MacroNet with the champion's kernels.",
        ),
    ]
    subtitle = f"{result.days} days judged, {span}"
    write_page(path, f"Evolution of {name}", sections, subtitle=subtitle)


PROBES = {
    "profile": "out-of-sample R2 of a ridge regression on the embedding, predicting the coming"
    " day's profile of volume and volatility",
    "gain": "share of the squared error that the embedding takes away, out of sample, from a"
    " regression on HAR-X's terms of the coming day's volatility, volume, range and two-hour"
    " profile, and of the profile of the days around its midnight",
}
SEARCHED = {
    "neat": "NEAT: species of genomes are bred by fitness",
    "random": "random search: as many genomes, and no selection",
    "map-elites": "MAP-Elites: the fittest genome of each kind is varied",
}


def _charts(result: Evolved) -> list[Section]:
    run, substrate = result.run, result.run.substrate
    return [
        Section(
            "The front",
            Chart(front_figure(run.front, result.index), "front"),
            note="Each point is a genome that no other beats: fewer connections, or a better probe."
            f" The probe is the {PROBES[run.settings.fitness]}. The champion is"
            f" {'several genomes' if result.index is None else 'the filled point'}.",
        ),
        Section(
            "Generation by generation",
            Chart(history_figure(run.history, run.settings.search != "neat"), "history"),
            note=f"{SEARCHED[run.settings.search]}. Fitness is the probe less the price of the"
            " connections.",
        ),
        Section(
            "What was found where",
            Chart(archive_figure(run.archive, substrate), "archive"),
            note="The fittest genome of each kind: by how far back its kernels look (mean age of"
            " what they read) and by the period of their strongest swing. Where several differ in"
            f" connections alone, the fittest is shown. {len(run.archive)} kinds were met, counting"
            " connections.",
        ),
        *(s for n, c in enumerate(result.champion) for s in _genome_charts(c.genome, result, n)),
    ]


def _genome_charts(genome: Genome, result: Evolved, number: int) -> list[Section]:
    """A genome, its kernels and what they answer to; numbered where the champion is several."""
    substrate, several = result.run.substrate, len(result.champion) > 1
    which, mark = (f" {number + 1}", f"-{number + 1}") if several else ("", "")
    return [
        Section(
            f"What champion{which} answers to",
            Chart(response_figure(genome, substrate), f"response{mark}"),
            note="Left: how strongly a unit of a feature, so many hours ago, moves the feature map"
            " (root of the summed squares over channels, nonlinearities aside). Right: the periods"
            " that it answers to most.",
        ),
        Section(
            f"The CPPN of champion{which}",
            Chart(genome_figure(genome, substrate.coordinate_names), f"genome{mark}"),
            note="It reads the coordinates on the left at every connection, and answers with the"
            " weight and whether there is a connection at all. Blue links add, red links subtract;"
            " width is strength.",
        ),
        Section(
            f"The kernels of champion{which}",
            Chart(kernel_figure(genome, substrate), f"kernels{mark}"),
            note="A row is a filter, a column an input channel at a tap (oldest first). Blue"
            " weights are positive, red ones negative; grey is not expressed.",
        ),
    ]


def recipe_lines(champion: Path) -> str:
    """What to put into a recipe to use a champion."""
    return f'[macro]\nencoder = "cppn"\nencoder_options = {{ genome = "{champion.resolve()}" }}'


def _cards(result: Evolved) -> Cards:
    run, champion = result.run, result.champion[0]
    share = champion.score.connections / run.substrate.weights
    probe = {"gain": "gain over HAR-X's terms", "profile": "probe (R2 of the next day)"}
    return Cards(
        [
            (probe[run.settings.fitness], number(champion.score.probe, 3)),
            ("connections", whole(champion.score.connections)),
            ("of all that could be", percent(share, 1)),
            ("nodes of the CPPN", whole(len(champion.genome.nodes))),
            ("search", run.settings.search),
            ("generations", whole(len(run.history))),
            ("found in generation", whole(champion.generation + 1)),
        ]
    )


def _transfers(result: Evolved) -> Section:
    rows = [
        (
            t.where,
            number(t.evolved, 3),
            number(t.random, 3),
            f"{t.connections:,} of {t.weights:,}",
        )
        for t in result.transfers
    ]
    return Section(
        "The same genome elsewhere",
        Table(("Generated for", "Probe", "Random CPPNs, probe", "Connections"), rows),
        note="Kernels come from coordinates, so the genome can be decoded for other windows, rows"
        " and candles without evolving again. Only the first row was selected for.",
    )


def front_figure(front: list[Candidate], index: int | None) -> go.Figure:
    """Probe against connections, the champion filled."""
    x = [c.score.connections for c in front]
    y = [c.score.probe for c in front]
    chosen = [STRATEGY if i == index else "#fff" for i in range(len(front))]
    text = [f"generation {c.generation + 1}, {c.genome.hidden} hidden nodes" for c in front]
    marks = go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        line={"shape": "hv", "color": HOLD, "width": 1},
        marker={"size": 11, "color": chosen, "line": {"color": STRATEGY, "width": 2}},
        text=text,
        hovertemplate="%{x:,} connections<br>probe %{y:.4f}<br>%{text}<extra></extra>",
    )
    figure = style(go.Figure(marks), 380, showlegend=False)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="connections expressed")
    figure.update_yaxes(title="probe")
    return figure


def history_figure(history: list[Generation], kinds: bool = False) -> go.Figure:
    """Best and median fitness; below, species alive, or the kinds that were met by then."""
    x = [line.number + 1 for line in history]
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.72, 0.28])
    for values, name, colour in (
        ([line.best_fitness for line in history], "best", STRATEGY),
        ([line.median_fitness for line in history], "median", WITHOUT),
    ):
        trace = go.Scatter(x=x, y=values, name=name, mode="lines+markers", line={"color": colour})
        figure.add_trace(trace, row=1, col=1)
    name = "kinds" if kinds else "species"
    below = [line.cells if kinds else line.species for line in history]
    figure.add_trace(go.Bar(x=x, y=below, name=name, marker_color=HOLD), row=2, col=1)
    style(figure, 420)
    figure.update_xaxes(dtick=1 if len(history) <= 20 else None)
    figure.update_xaxes(title="generation", row=2, col=1)
    figure.update_yaxes(title="fitness", row=1, col=1)
    figure.update_yaxes(title=name, row=2, col=1)
    return figure


def genome_figure(genome: Genome, coordinates: Sequence[str] = COORDINATES) -> go.Figure:
    """The CPPN as a graph: coordinates left, outputs right, hidden nodes by depth."""
    where = node_places(genome, len(coordinates))
    figure = go.Figure()
    strongest = max((abs(link.weight) for link in genome.links), default=1.0) or 1.0
    for link in genome.links:
        if not link.enabled or link.source not in where or link.target not in where:
            continue
        (x0, y0), (x1, y1) = where[link.source], where[link.target]
        width = 0.5 + 5 * abs(link.weight) / strongest
        colour = STRATEGY if link.weight > 0 else SELL
        line = {"color": colour, "width": width}
        figure.add_trace(
            go.Scatter(x=[x0, x1], y=[y0, y1], mode="lines", line=line, hoverinfo="skip")
        )
    _draw_nodes(figure, genome, where, coordinates)
    style(figure, 420, showlegend=False)
    # Names stand beside the outer nodes: pixels, not shares, keep them whole on a phone.
    figure.update_layout(hovermode="closest", margin={"l": 86, "r": 128})
    figure.update_xaxes(visible=False, range=[-0.03, 1.03])
    figure.update_yaxes(visible=False)
    return figure


def _draw_nodes(
    figure: go.Figure,
    genome: Genome,
    where: dict[int, tuple[float, float]],
    coordinates: Sequence[str],
) -> None:
    names = {-1 - i: name for i, name in enumerate(coordinates)}
    for node in genome.nodes:
        kind = node.activation if node.aggregation == "sum" else f"{node.activation} of product"
        output = node.key < genome.outputs
        names[node.key] = f"{GATED_OUTPUTS[node.key]}: {kind}" if output else kind
    sides = {-1: "middle left", 0: "top center", 1: "middle right"}
    for key, (x, y) in where.items():
        side = sides[-1 if key < 0 else 1 if key < genome.outputs else 0]
        figure.add_trace(
            go.Scatter(
                x=[x],
                y=[y],
                mode="markers+text",
                text=[names[key]],
                textposition=side,
                cliponaxis=False,
                marker={"size": 14, "color": HOLD if key < 0 else BUY},
                hovertemplate=f"{names[key]}<extra></extra>",
            )
        )


def node_places(genome: Genome, inputs: int = len(COORDINATES)) -> dict[int, tuple[float, float]]:
    """Where each node is drawn, x and y in [0, 1]: x is the longest way from the inputs."""
    depth = {-1 - i: 0 for i in range(inputs)}
    keys = {node.key for node in genome.nodes}
    incoming = {
        key: [y.source for y in genome.links if y.target == key and y.enabled] for key in keys
    }

    def deepest(key: int) -> int:
        if key not in depth:
            depth[key] = 1 + max((deepest(source) for source in incoming[key]), default=0)
        return depth[key]

    last = max(deepest(key) for key in keys)
    for output in range(genome.outputs):
        depth[output] = max(last, 1)
    columns: dict[int, list[int]] = {}
    for key in sorted(depth, key=lambda k: (depth[k], -k if k < 0 else k)):
        columns.setdefault(depth[key], []).append(key)
    return {
        key: (column / max(depth.values()), 1 - (row + 1) / (len(members) + 1))
        for column, members in columns.items()
        for row, key in enumerate(members)
    }


def kernel_figure(genome: Genome, substrate: Substrate) -> go.Figure:
    """One image a layer: filters by inputs and taps, blank where not expressed."""
    kernels = decode(genome, substrate)
    titles = [
        f"layer {i}: {y.outputs} x {y.inputs} x {y.taps}, dilation {y.dilation}"
        for i, y in enumerate(substrate.layers)
    ]
    spacing = 0.3 / len(titles)
    figure = make_subplots(rows=len(titles), subplot_titles=titles, vertical_spacing=spacing)
    for row, (weight, mask) in enumerate(zip(kernels.weights, kernels.masks, strict=True), 1):
        image: NDArray[np.float64] = np.where(mask.numpy(), weight.numpy(), np.nan).astype(float)
        reach = float(np.nanmax(np.abs(image))) if mask.any() else 1.0
        picture = go.Heatmap(
            z=np.round(image.reshape(len(image), -1), 4),
            colorscale="RdBu",
            zmin=-reach,
            zmax=reach,
            showscale=False,
            hovertemplate="filter %{y}, input x tap %{x}<br>weight %{z}<extra></extra>",
        )
        figure.add_trace(picture, row=row, col=1)
    style(figure, 280 * len(titles))
    figure.update_layout(hovermode="closest", margin={"t": 36}, plot_bgcolor=NOT_EXPRESSED)
    figure.update_xaxes(title="input × tap", showgrid=False, zeroline=False)
    figure.update_yaxes(title="filter", showgrid=False, zeroline=False, autorange="reversed")
    return figure


def archive_figure(archive: Archive, substrate: Substrate) -> go.Figure:
    """Fitness of the best genome by what its kernels see; blank where none was found."""
    image = np.full(SHAPE[:2], np.nan)
    text = np.full(SHAPE[:2], "not found", dtype=object)
    for (reach, period, _), elite in archive.cells.items():
        score = elite.score
        if not image[reach, period] >= score.fitness:
            image[reach, period] = score.fitness
            text[reach, period] = (
                f"{score.connections:,} connections, generation {elite.generation + 1}"
            )
    picture = go.Heatmap(
        z=image,
        x=_period_names(substrate),
        y=_reach_names(substrate),
        text=text,
        colorscale="Blues",
        colorbar={"title": "fitness"},
        hovertemplate="looks back %{y}<br>period %{x}<br>fitness %{z:.4f}<br>%{text}"
        "<extra></extra>",
    )
    figure = style(go.Figure(picture), 380, showlegend=False)
    figure.update_layout(hovermode="closest", plot_bgcolor=NOT_EXPRESSED)
    figure.update_xaxes(title="period of the strongest swing", showgrid=False)
    figure.update_yaxes(title="looks back", showgrid=False)
    return figure


def _row_h(substrate: Substrate) -> float:
    return substrate.stride * substrate.interval_ms / 3_600_000


def _reach_names(substrate: Substrate) -> list[str]:
    """Names of the archive's bins of reach, in hours."""
    longest = max(substrate.receptive_field - 1, 1) * _row_h(substrate)
    edges = [0.0, *(share * longest for share in REACH_EDGES), longest]
    return [f"{a:.3g}-{b:.3g} h" for a, b in pairwise(edges)]


def _period_names(substrate: Substrate) -> list[str]:
    """Names of the archive's bins of period, in hours."""
    edges = [edge * _row_h(substrate) for edge in PERIOD_EDGES[1:]]
    between = [f"{a:.3g}-{b:.3g} h" for a, b in pairwise(edges)]
    return ["none", f"below {edges[0]:.3g} h", *between, f"above {edges[-1]:.3g} h"]


def response_figure(genome: Genome, substrate: Substrate) -> go.Figure:
    """Strength of the response by feature and age, and its power by period."""
    response = impulse_response(decode(genome, substrate), substrate)  # (F, C, R)
    strength = np.sqrt((response**2).sum(axis=1))  # (F, R)
    hours = np.arange(strength.shape[1]) * _row_h(substrate)
    names = [*substrate.features] or [f"feature {i}" for i in range(len(strength))]
    power = spectrum(response)
    cycles = np.arange(1, len(power))
    periods = 2 * (len(power) - 1) * _row_h(substrate) / cycles
    figure = make_subplots(cols=2, column_widths=[0.62, 0.38], horizontal_spacing=0.12)
    picture = go.Heatmap(
        z=np.round(strength, 4),
        x=hours,
        y=names,
        colorscale="Blues",
        showscale=False,
        hovertemplate="%{y}<br>%{x:.3g} h ago<br>strength %{z}<extra></extra>",
    )
    figure.add_trace(picture, row=1, col=1)
    line = go.Scatter(
        x=periods,
        y=power[1:] / max(power.max(), 1e-12),
        mode="lines",
        line={"color": STRATEGY},
        hovertemplate="period %{x:.3g} h<br>power %{y:.3f}<extra></extra>",
    )
    figure.add_trace(line, row=1, col=2)
    style(figure, 360, showlegend=False)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title="hours ago", row=1, col=1)
    figure.update_yaxes(title="feature", showgrid=False, row=1, col=1)
    figure.update_xaxes(title="period, hours", type="log", row=1, col=2)
    figure.update_yaxes(title="power, of the most", row=1, col=2)
    return figure
