"""The forecasting objective: where it starts, what it adds, and that it knows no day too early."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.encoders import build_encoder
from cppncripto_strategy.models.inputs.features import FeatureTable
from cppncripto_strategy.models.inputs.outcomes import day_outcomes
from cppncripto_strategy.models.inputs.sessions import (
    SessionFacts,
    SessionSet,
    SessionSettings,
    build_sessions,
)
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.learning.macro import learn_macronet
from cppncripto_strategy.models.pretraining import (
    OBJECTIVES,
    build_objective,
    objective_names,
    objective_options,
    pretrain,
)
from cppncripto_strategy.models.pretraining.forecast import DayForecast
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings
from cppncripto_strategy.testing.grids import changed_from, random_grid

NAMES = ("log_return", "volume_z", "present")
COLUMNS = FeatureTable.of(NAMES)
ROWS, HOUR_MS = 48, 3_600_000
DAY = 24


class Days:
    """Windows whose mean volume moves the outcomes, beside terms that move them, too."""

    def __init__(self, count: int, seed: int, hidden: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(0, 0.5, (count, ROWS, 3))
        level = rng.normal(0, 1, count)
        x[..., 1] += level[:, None]
        x[..., 2] = 1.0
        terms = rng.normal(3.0, 2.0, (count, 2))
        noise = rng.normal(0, 0.3, (count, 3))
        outcomes = 0.5 * terms[:, :1] + hidden * np.tanh(level)[:, None] + noise
        outcomes[::7, 1] = np.nan
        self.x = torch.from_numpy(x.astype(np.float32))
        self.known = SessionFacts(
            torch.tensor(terms, dtype=torch.float32), torch.tensor(outcomes, dtype=torch.float32)
        )

    def __len__(self) -> int:
        return len(self.x)

    def gather(self, index: NDArray[np.int64]) -> Tensor:
        return self.x[torch.from_numpy(index)]

    def facts(self) -> SessionFacts:
        return self.known


def pair(options: dict[str, Any] | None = None) -> tuple[Any, DayForecast]:
    torch.manual_seed(0)
    encoder = build_encoder("tcn", 3, {"channels": 8, "stride": 4, "dilations": [1, 2]}, width=16)
    objective = build_objective("forecast", encoder, COLUMNS, options, DAY)
    assert isinstance(objective, DayForecast)
    return encoder, objective


def r2(forecast: Tensor, outcomes: Tensor) -> float:
    """Share of the first outcome's variance that is forecast."""
    error = (outcomes[:, 0] - forecast[:, 0]).square().mean()
    return float(1 - error / outcomes[:, 0].var(correction=0))


def test_the_linear_part_is_least_squares_on_the_known_sessions() -> None:
    """A start away from HAR, an intercept that is shrunk, or an unknown outcome taken for 0."""
    days = Days(400, 1)
    _, objective = pair({"ridge": 1e-9})
    objective.prepare(days.known)
    known = ~np.isnan(days.known.outcomes.numpy()).any(axis=1)
    x = np.column_stack([days.known.terms.numpy(), np.ones(len(days))])
    weights, *_ = np.linalg.lstsq(x[known], days.known.outcomes.numpy()[known], rcond=None)
    np.testing.assert_allclose(objective.linear(days.known.terms).numpy(), x @ weights, atol=1e-3)
    left = (days.known.outcomes.numpy() - x @ weights)[known].std(axis=0)
    np.testing.assert_allclose(objective.error.numpy(), left, rtol=0.01)


def test_learning_adds_to_the_linear_part_what_the_window_tells() -> None:
    """An encoder that learns nothing beside its terms, or a width that does not follow."""
    train, validation, later = Days(600, 1), Days(200, 2), Days(300, 3)
    encoder, objective = pair()
    settings = PretrainSettings(epochs=12, batch_size=32, learning_rate=1e-2)
    curve = pretrain(encoder, objective, train, validation, settings, seed=0)
    with torch.no_grad():
        linear = r2(objective.linear(later.known.terms), later.known.outcomes)
        mean, width = objective.forecast(encoder, later.x, later.known.terms)
    assert 0.5 < linear < 0.8
    assert r2(mean, later.known.outcomes) > 0.9
    assert float((width / objective.error).median()) < 0.75
    assert curve.validation[curve.best_epoch] < curve.validation[0]


def test_windows_that_tell_nothing_leave_the_forecast_where_it_stood() -> None:
    """A correction made of noise, far from the anchor, kept because nothing stopped it."""
    train, validation, later = (Days(n, s, hidden=0.0) for n, s in ((600, 1), (200, 2), (300, 3)))
    encoder, objective = pair()
    pretrain(encoder, objective, train, validation, PretrainSettings(epochs=8), seed=0)
    with torch.no_grad():
        linear = r2(objective.linear(later.known.terms), later.known.outcomes)
        mean, _ = objective.forecast(encoder, later.x, later.known.terms)
    assert abs(r2(mean, later.known.outcomes) - linear) < 0.02


def test_an_unknown_outcome_moves_nothing() -> None:
    """NaN in a gradient; a missing range that counts as an ordinary one."""
    days = Days(32, 5)
    encoder, objective = pair()
    objective.prepare(Days(400, 1).known)
    objective.eval()

    def loss(outcomes: Tensor) -> Tensor:
        facts = dataclasses.replace(days.known, outcomes=outcomes)
        return objective.informed_loss(encoder, days.x, facts, torch.Generator().manual_seed(0))

    whole = days.known.outcomes.clone()
    whole[:, 1:] = torch.nan
    part = loss(whole)
    part.backward()
    assert part.isfinite()
    gradients = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    whole[3] = torch.nan
    assert loss(whole).item() != part.item()


def test_other_objectives_are_added_with_their_weights() -> None:
    """A weight that is read and not applied; an objective beside that is never built."""
    days = Days(16, 5)
    torch.manual_seed(0)
    encoder, plain = pair()
    _, both = pair({"beside": {"masked": 0.25}})
    for objective in (plain, both):
        objective.prepare(Days(400, 1).known)
        objective.eval()
    both.heads.load_state_dict(plain.heads.state_dict())
    draws = [torch.Generator().manual_seed(4) for _ in range(3)]
    alone = plain.informed_loss(encoder, days.x, days.known, draws[0])
    summed = both.informed_loss(encoder, days.x, days.known, draws[1])
    masked: Any = both.beside["masked"]
    expected = alone + 0.25 * masked.loss(encoder, days.x, draws[2])
    torch.testing.assert_close(summed, expected)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"forecast": 1.0}, "forecast is learned already"),
        ({"maskd": 1.0}, "did you mean 'masked'"),
        ({"masked": 0.0}, "greater than 0"),
    ],
)
def test_weights_that_cannot_be_are_refused(beside: dict[str, float], message: str) -> None:
    """A sum with itself, or a misspelt objective that is silently left out."""
    with pytest.raises(RecipeError, match=message):
        objective_options("forecast", {"beside": beside})


def test_windows_whose_days_are_not_known_are_refused() -> None:
    """An AttributeError in the middle of a training."""

    class Bare:
        def __len__(self) -> int:
            return 9

        def gather(self, index: NDArray[np.int64]) -> Tensor:
            return torch.zeros(len(index), ROWS, 3)

    encoder, objective = pair()
    with pytest.raises(TrainingError, match="Bare does not know it: give it a SessionSet"):
        pretrain(encoder, objective, Bare(), Bare(), PretrainSettings(), 0)
    none = SessionFacts(torch.zeros(50, 0), torch.zeros(50, 3))
    with pytest.raises(TrainingError, match=r"name some in macro\.terms"):
        objective.prepare(none)
    few = SessionFacts(torch.zeros(4, 4), torch.zeros(4, 3))
    with pytest.raises(TrainingError, match="outcomes of 4 sessions, too few to fit 4 terms"):
        objective.prepare(few)


@pytest.mark.parametrize("members", [1, 3])
def test_the_correction_is_what_the_encoder_adds(members: int) -> None:
    """Kills weights of the embedding that are not the head's, and a mean over too few members."""
    days = Days(64, 5)
    torch.manual_seed(1)
    options = {"channels": 8, "stride": 4, "dilations": [1], "members": members}
    encoder = build_encoder("tcn", 3, options, width=16)
    objective: Any = build_objective("forecast", encoder, COLUMNS, {}, DAY)
    objective.prepare(Days(400, 1).known)
    with torch.no_grad():
        mean, _ = objective.forecast(encoder, days.x, days.known.terms)
        weights, constants = objective.correction()
        added = encoder(days.x) @ weights.T + constants
    torch.testing.assert_close(mean, objective.linear(days.known.terms) + added)
    assert weights.shape == (3, 16)
    assert bool((added.abs() > 0).all())


def test_hidden_numbers_are_drawn_from_the_generator_and_only_in_training() -> None:
    """Kills a dropout that validation feels, or that another seed cannot repeat."""
    days = Days(64, 5)
    encoder, objective = pair({"dropout": 0.5})
    objective.prepare(Days(400, 1).known)

    def loss(seed: int) -> float:
        draw = torch.Generator().manual_seed(seed)
        return objective.informed_loss(encoder, days.x, days.known, draw).item()

    assert loss(1) == loss(1) != loss(2)
    objective.eval()
    assert loss(1) == loss(2)


def test_the_best_epochs_head_is_kept_beside_its_encoder() -> None:
    """Kills a correction read from a head of a later epoch than the encoder."""
    train, validation = Days(300, 1), Days(100, 2)
    encoder, objective = pair()
    settings = PretrainSettings(epochs=6, batch_size=16, learning_rate=0.1, patience=6)
    curve = pretrain(encoder, objective, train, validation, settings, seed=0)
    assert curve.best_epoch < len(curve.validation) - 1  # else nothing is shown
    generator = torch.Generator().manual_seed(1)
    order = np.random.default_rng(1).permutation(100)
    with torch.no_grad():
        parts = [
            objective.informed_loss(
                encoder, validation.gather(rows), validation.facts().at(rows), generator
            )
            for rows in np.split(order, range(16, 100, 16))
        ]
    assert float(torch.stack(parts).mean()) == pytest.approx(min(curve.validation), rel=1e-4)


# --- sessions of candles --------------------------------------------------------------------------

LEARN = LearnSettings(
    session=SessionSettings(HOUR_MS, 48, names=("log_return", "present"), terms=("weekday", "har")),
    encoder_options={"channels": 4, "stride": 6, "dilations": [1]},
    objective="forecast",
    pretrain=PretrainSettings(epochs=2),
    train=TrainSettings(epochs=1, initialisations=1),
    label=LabelSettings(horizon=3),
    short_window=8,
    micro_options={"channels": 4, "hidden": 4},
    train_days=40,
    validate_days=12,
)
GRID = random_grid(100 * DAY, 0, interval_ms=HOUR_MS)


def test_outcomes_that_reach_beyond_the_warm_up_are_refused() -> None:
    """A cached bundle that depends on candles its key does not hold."""
    session = dataclasses.replace(LEARN.session, terms=("weekday",))
    learn = dataclasses.replace(LEARN, session=session)
    table = build_sessions("A", GRID, session)
    with pytest.raises(RecipeError, match=r"721 candles, and the warm-up is 49\. Add 'har'"):
        learn_bundle([table], int(GRID.start_ms) + 92 * DAY_MS, learn, 0)


def test_objectives_beside_are_among_the_parts() -> None:
    """A user's objective learned beside a forecast, whose file the bundle does not name."""
    assert objective_names("masked", {}) == ["masked"]
    assert objective_names("forecast", {"beside": {"masked": 0.5}}) == ["forecast", "masked"]

    class Informed(DayForecast):
        def __init__(self, encoder: Any, columns: Any, day_candles: int, options: Any) -> None:
            super().__init__(encoder, columns, day_candles, options)

    try:
        OBJECTIVES.register("informed")(Informed)
        with pytest.raises(RecipeError, match="cannot learn informed beside it"):
            pair({"beside": {"informed": 1.0}})
    finally:
        OBJECTIVES.forget("this process")


def test_facts_are_each_sessions_own() -> None:
    """Outcomes of one symbol under another's windows, or of the day before."""
    grids = [GRID, random_grid(90 * DAY, 1, interval_ms=HOUR_MS)]
    tables = [build_sessions(n, g, LEARN.session) for n, g in zip("AB", grids, strict=True)]
    sessions = SessionSet.between(tables, 0, 2**62)
    facts = sessions.facts()
    for place in (0, 20, len(sessions) - 2):
        number, session = sessions.members[place]
        start = tables[number].start_ms[session : session + 1]
        expected = day_outcomes(grids[number], start)[0].astype(np.float32)
        np.testing.assert_array_equal(facts.outcomes[place], expected)
        np.testing.assert_array_equal(
            facts.terms[place], tables[number].terms[session].astype(np.float32)
        )
    assert SessionSet.between([], 0, 1).facts().outcomes.shape[0] == 0


@pytest.mark.parametrize("part", ["training", "validation"])
def test_no_outcome_beyond_a_boundary_is_learned_from(part: str) -> None:
    """The first validation day taught as the last training day's tomorrow; a look past the end."""
    until_ms = int(GRID.start_ms) + 92 * DAY_MS
    split_ms = until_ms - LEARN.validate_days * DAY_MS
    if part == "validation":
        other = changed_from(GRID, GRID.row_of(until_ms))
        hashes = {
            learn_bundle([build_sessions("A", g, LEARN.session)], until_ms, LEARN, 0).model_hash
            for g in (GRID, other)
        }
        assert len(hashes) == 1
        return
    start_ms = split_ms - LEARN.train_days * DAY_MS
    facts = [
        SessionSet.between([build_sessions("A", g, LEARN.session)], start_ms, split_ms).facts()
        for g in (GRID, changed_from(GRID, GRID.row_of(split_ms)))
    ]
    assert len(facts[0].outcomes) == LEARN.train_days
    assert facts[0].outcomes.isfinite().all()
    torch.testing.assert_close(facts[0].outcomes, facts[1].outcomes, rtol=0, atol=0)


def test_a_bundle_adds_half_of_what_its_macronet_would() -> None:
    """Kills a correction in other units than the forecast's, or lost when MacroNet is kept."""
    table = build_sessions("A", GRID, LEARN.session)
    until_ms = int(GRID.start_ms) // DAY_MS * DAY_MS + 95 * DAY_MS
    learn = dataclasses.replace(LEARN, train_days=48)
    sessions = [
        SessionSet.between([table], until_ms - d * DAY_MS, until_ms - u * DAY_MS)
        for d, u in ((60, 12), (12, 0))
    ]
    macro = learn_macronet(*sessions, until_ms, learn, seed=0)
    assert macro.net is not None
    torch.manual_seed(0)
    encoder = build_encoder("tcn", 2, learn.encoder_options, macro.net.encoder.width)
    objective: Any = build_objective("forecast", encoder, learn.session.table, {}, DAY)
    pretrain(encoder, objective, *sessions, learn.pretrain, seed=0)
    with torch.no_grad():
        x, facts = sessions[1].gather(np.arange(12)), sessions[1].facts()
        added = objective.forecast(encoder, x, facts.terms)[0] - objective.linear(facts.terms)
        vectors = embed_set(macro.net, sessions[1]).double().numpy()
    found = vectors @ macro.correction[:, :-1].T + macro.correction[:, -1]
    np.testing.assert_allclose(found[:, 0], added[:, 0] / 4, atol=1e-4)
    np.testing.assert_allclose(found[:, 1], added[:, 2] / 2, atol=1e-4)
    bundle = learn_bundle([table], until_ms, learn, 0)
    if bundle.forecaster is not None:
        kept = learn_macronet(*sessions, until_ms, learn, 0, bundle)
        assert kept.correction is bundle.forecaster.correction
    contrast = dataclasses.replace(learn, objective="contrastive")
    assert learn_macronet(*sessions, until_ms, contrast, 0).correction is None
