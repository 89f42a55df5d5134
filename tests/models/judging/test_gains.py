"""What an embedding adds to a linear forecast: planted answers, and a direct regression."""

import numpy as np
import pytest

from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.judging import gains
from cppncripto_strategy.models.judging.gains import Judged, parts_of, thinned, walk_forward_gain

DAYS, SYMBOLS = 200, 3


def planted(seed=0, noise=1.0):
    """Two targets: the anchor's first term and a hidden number, with a level per symbol."""
    rng = np.random.default_rng(seed)
    day_ms = np.tile(np.arange(DAYS) * DAY_MS, SYMBOLS)
    symbol = np.repeat(np.arange(SYMBOLS), DAYS)
    anchor, hidden = rng.standard_normal((len(symbol), 4)), rng.standard_normal(len(symbol))
    level = 5.0 * symbol[:, None]
    said = np.stack([anchor[:, 0] + hidden, anchor[:, 1] - hidden], axis=1)
    targets = level + said + noise * rng.standard_normal((len(symbol), 2))
    return Judged(anchor, targets, np.array([1.0, 0.5]), symbol, day_ms), hidden[:, None], rng


def test_embedding_that_repeats_the_terms_gains_nothing():
    """Fitness that is R2 would pay a genome for HAR-X, which is known already."""
    judged, _, rng = planted()
    repeated = judged.anchor @ rng.standard_normal((4, 30))
    assert walk_forward_gain(repeated, judged) == pytest.approx(0, abs=2e-3)


def test_embedding_that_knows_the_rest_gains_its_share():
    """Anchor alone: hidden (1) and noise (1) are left; with the hidden number, the noise."""
    judged, hidden, rng = planted()
    embedding = np.hstack([hidden, rng.standard_normal((len(hidden), 9))])
    assert walk_forward_gain(embedding, judged) == pytest.approx(0.5, abs=0.05)


def test_noise_gains_nothing_and_costs_next_to_nothing():
    """A hundred useless columns beside 80 to 160 days: one penalty for all would drown in them."""
    judged, _, rng = planted()
    gain = walk_forward_gain(rng.standard_normal((len(judged.symbol), 116)), judged)
    assert -0.02 < gain < 0.005


def test_levels_of_symbols_are_nobodys_gain():
    """A column that names the symbol would be paid for what a constant says."""
    judged, _, _ = planted()
    named = np.eye(SYMBOLS)[judged.symbol]
    assert walk_forward_gain(named, judged) == pytest.approx(0, abs=1e-9)


def test_later_days_change_nothing_about_earlier_parts():
    """Penalties, means or scales taken from all days let a genome see what judges it."""
    judged, hidden, _ = planted()
    parts = parts_of(judged.day_ms, 4)
    cut = np.flatnonzero(judged.day_ms < judged.day_ms[parts[-1][1]].min())
    seen = []
    for data, rows in ((judged, np.arange(len(hidden))), (judged.rows(cut), cut)):
        whole = []
        for learn, judge in parts[:-1]:
            place = {row: number for number, row in enumerate(rows)}
            at = [np.array([place[row] for row in side]) for side in (learn, judge)]
            part = gains._Part.of(data, *at, penalty=1.0)
            whole.append(part.errors(hidden[rows], data.weights))
        seen.append(np.array(whole))
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-9)


def test_two_penalties_at_once_equal_one_regression_with_both():
    """The anchor is fitted out first: with a wrong projection the two would not be one ridge."""
    judged, hidden, rng = planted()
    embedding = np.hstack([hidden, rng.standard_normal((len(hidden), 5))])
    learn, judge = parts_of(judged.day_ms, 4)[2]
    symbols = judged.symbol[learn], judged.symbol[judge]
    x, x_new = gains._standardised(judged.anchor[learn], judged.anchor[judge], symbols)
    e, e_new = gains._standardised(embedding[learn], embedding[judge], symbols)
    y, y_new = gains._standardised(judged.targets[learn], judged.targets[judge], symbols)
    part = gains._Part.of(judged, learn, judge, penalty=10.0)
    found = part.errors(embedding, judged.weights)
    for number in (0, 5, 10):
        rows = np.hstack([x, e])
        own = np.diag([10.0] * 4 + [gains.PENALTIES[number]] * 6)
        weights = np.linalg.solve(rows.T @ rows + own, rows.T @ y)
        missed = y_new - np.hstack([x_new, e_new]) @ weights
        assert found[number] == pytest.approx(float((missed**2 @ judged.weights).sum()))
    weights = np.linalg.solve(x.T @ x + 10.0 * np.eye(4), x.T @ y)
    assert found[-1] == pytest.approx(
        float(((y_new - x_new @ weights) ** 2 @ judged.weights).sum())
    )


def test_too_few_days_are_refused_with_what_to_do():
    """Fifteen terms on ten days, and a number that is nothing but luck."""
    with pytest.raises(TrainingError, match=r"on 31 days .* 20 to learn from and 12 to judge on"):
        parts_of(np.arange(31) * DAY_MS, 4)
    learn, judge = parts_of(np.arange(32) * DAY_MS, 4)[0]
    assert (len(learn), len(judge)) == (20, 3)


def test_part_learns_from_days_whose_targets_are_known():
    """A target that lasts three days is not known on the next: it would overlap what is judged."""
    for learn, judge in parts_of(np.arange(100) * DAY_MS, 4, known_after=3):
        assert judge.min() - learn.max() == 3


def test_thinned_days_keep_every_symbol_and_most_of_the_span():
    """The first N rows would be one symbol's first year."""
    judged, _, _ = planted()
    kept = thinned(judged.symbol, judged.day_ms, 100)
    assert 60 < len(kept) <= 100
    counts = np.bincount(judged.symbol[kept])
    assert counts.max() - counts.min() <= 1
    days = [set(judged.day_ms[kept][judged.symbol[kept] == s]) for s in range(SYMBOLS)]
    assert not days[0] & days[1], "all symbols keep the same days"
    assert max(map(max, days)) > (DAYS - 10) * DAY_MS
    assert len(thinned(judged.symbol, judged.day_ms, 600)) == len(judged.symbol)
