"""MicroNet's shape: its receptive field, its context, its two heads."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS, FeatureTable
from cppncripto_strategy.models.micronet import BUY, HOLD, SELL, MicroNet
from cppncripto_strategy.models.settings import MicroNetSettings, choose_dilations


def lags_seen(dilations, kernel):
    """Every lag that some path through the taps reaches, by enumeration."""
    seen = {0}
    for dilation in dilations:
        seen = {lag + tap * dilation for lag, tap in itertools.product(seen, range(kernel))}
    return seen


@given(window=st.integers(2, 400), kernel=st.integers(2, 6))
def test_receptive_field_fits_the_window_and_has_no_holes(window, kernel):
    """A network that sees before its short window, or never looks at some of its candles."""
    if (window - 1) // (kernel - 1) < 1:
        with pytest.raises(RecipeError, match="too short"):
            choose_dilations(window, kernel)
        return
    dilations = choose_dilations(window, kernel)
    field = 1 + (kernel - 1) * sum(dilations)
    assert field <= window
    assert window - field < kernel - 1  # another candle's worth of dilation would not fit
    assert lags_seen(dilations, kernel) == set(range(field))
    assert len(dilations) <= np.log2(window) + 2


def test_kernel_of_one_tap_is_refused():
    """A division by zero out of the recipe."""
    with pytest.raises(RecipeError, match="at least 2 taps"):
        choose_dilations(60, 1)


def net_of(**shape):
    torch.manual_seed(0)
    given_shape = {"n_features": 3, "n_context": 5, "short_window": 12, **shape}
    return MicroNet(MicroNetSettings(**given_shape)).eval()


def test_output_depends_on_its_receptive_field_alone():
    """Padding, or a shift by one: an output that sees a later candle or misses its oldest."""
    net = net_of()
    field = net.receptive_field
    x = torch.randn(1, field + 4, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = net.body(x)
        assert before.shape[1] == 5
        for moved in range(x.shape[1]):
            other = x.clone()
            other[0, moved] += 5.0
            differs = (net.body(other) != before).any(dim=2)[0]
            expected = [out <= moved < out + field for out in range(5)]
            assert differs.tolist() == expected


@pytest.mark.parametrize("head", ["classes", "regression"])
def test_score_lies_between_its_sides(head):
    """Buy and sell exchanged, or a score outside [-1, 1]."""
    net = net_of(head=head)
    logits = torch.randn(50, 3 if head == "classes" else 1) * 4
    score, p_buy, p_sell = net.probabilities(logits).unbind(-1)
    torch.testing.assert_close(score, p_buy - p_sell)
    assert (score.abs() <= 1).all()
    if head == "classes":
        exp = np.exp(logits.numpy().astype(np.float64))
        expected = exp[:, BUY] / exp.sum(axis=1)
        np.testing.assert_allclose(p_buy.numpy(), expected, atol=1e-6)
        assert {SELL, HOLD, BUY} == {0, 1, 2}
    else:
        np.testing.assert_allclose(score.numpy(), np.tanh(logits.numpy()[:, 0]), atol=1e-6)


def test_context_is_whitened_on_the_days_it_was_fitted_on():
    """Components of different strength: FiLM would hear the loudest direction alone."""
    net = net_of(components=3)
    generator = torch.Generator().manual_seed(2)
    days = torch.randn(400, 5, generator=generator) * torch.tensor([10.0, 3.0, 1.0, 0.3, 0.1])
    days -= days.mean(dim=0)
    net.fit_context(days)
    components = days @ net.whiten
    covariance = components.T @ components / len(days)
    torch.testing.assert_close(covariance, torch.eye(3), atol=1e-3, rtol=0)


def test_context_without_variance_stays_zero():
    """Noise blown up to unit variance for a network without macro."""
    net = net_of()
    net.fit_context(torch.zeros(30, 5))
    assert not net.whiten.any()
    net.fit_context(torch.outer(torch.randn(30), torch.ones(5)))
    assert (net.whiten.abs().sum(dim=0) > 0).sum() == 1


def test_embedding_reaches_the_score():
    """FiLM left out: macro and micro would score alike for ever."""
    net = net_of()
    net.fit_context(torch.randn(40, 5, generator=torch.Generator().manual_seed(3)))
    x = torch.randn(2, 20, 3)
    with torch.no_grad():
        lit, dark = net(x, torch.ones(2, 5)), net(x, torch.zeros(2, 5))
    assert (lit - dark).abs().max() > 1e-3


@pytest.mark.parametrize("short_window", [5, 12, 40])
def test_recall_equals_its_definition_window_by_window(short_window):
    """Another window, another candle's query, or a running total that drifts."""
    net = net_of(short_window=short_window)
    field, taps = net.receptive_field, net.recall_taps
    x = torch.randn(1, field + 30, 3, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        got = net.recall(x)[0].numpy()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def affine(name, z):
        return w[f"{name}.weight"] @ z + w[f"{name}.bias"]

    def local(rows):
        a, b = np.split(affine("local", rows.ravel()), 2)
        h = a * np.tanh(b) + np.maximum(a, 0)
        a, b = np.split(affine("deepen", h), 2)
        return h + a * np.tanh(b)

    rows = x[0].double().numpy()
    assert len(got) == 31
    for end in range(field, len(rows) + 1):
        window = rows[end - field : end]
        every = [local(window[i : i + taps]) for i in range(field - taps + 1)]
        total = np.zeros(net.settings.channels)
        for h in every:
            value, gate = np.split(affine("value", h), 2)
            total += np.tanh(value) / (1 + np.exp(-gate))
        now = every[-1]
        asked = affine("query", now) * np.tanh(total)
        expected = affine("recall_out", np.concatenate([now, total, asked]))
        np.testing.assert_allclose(got[end - field], expected, atol=2e-6)


def test_without_a_clock_the_time_of_day_changes_nothing():
    """A hidden column that still reaches the score, or one hidden that should not be."""
    x = torch.randn(1, 30, 9, generator=torch.Generator().manual_seed(5))
    for clock in (True, False):
        net = net_of(n_features=9, unseen=() if clock else FeatureTable.of(DEFAULT_COLUMNS).clock)
        assert [DEFAULT_COLUMNS[i] for i in range(9) if not net.seen[i]] == (
            [] if clock else ["sin_day", "cos_day"]
        )
        with torch.no_grad():
            before = net.body(x)
            for column in range(9):
                other = x.clone()
                other[..., column] += 1.0
                hidden = torch.equal(net.body(other), before)
                assert hidden == (not clock and DEFAULT_COLUMNS[column] in ("sin_day", "cos_day"))
