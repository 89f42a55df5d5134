"""The ridge with one penalty: its equations, its penalty, its dead columns."""

import numpy as np
import pytest

from cppncripto_strategy.models.ridge import PENALTIES, fit_ridge, ridge_path


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("columns", [3, 40])
def test_ridge_solves_the_normal_equations(columns):
    """A penalty applied to the wrong power of the singular values shrinks wrongly."""
    inputs, targets = normal(30, columns) * 3 + 1, normal(30, 2, seed=1)
    ridge = fit_ridge(inputs, targets)
    z = (inputs - inputs.mean(0)) / inputs.std(0)
    gram = z.T @ z + ridge.penalty * np.eye(columns)
    expected = np.linalg.solve(gram, z.T @ (targets - targets.mean(0)))
    np.testing.assert_allclose(ridge.weights, expected, atol=1e-9)
    np.testing.assert_allclose(ridge.predict(inputs), targets.mean(0) + z @ expected, atol=1e-9)


def test_penalty_is_the_one_that_leaves_one_out_best():
    """Generalised cross-validation with equal leverages is leave-one-out: brute force agrees."""
    n = 16  # the columns of a Fourier basis give every row the same leverage
    turn = 2 * np.pi * np.arange(n) / n
    inputs = np.stack([np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)], axis=1)
    penalties = (0.01, 1.0, 10.0, 100.0)
    for seed in range(5):
        targets = inputs[:, :1] * 0.8 + normal(n, 1, seed=seed)

        def left_out_error(penalty, targets=targets):
            z = inputs / inputs.std(0)
            hat = 1 / n + z @ np.linalg.solve(z.T @ z + penalty * np.eye(4), z.T)
            return (((targets - hat @ targets) / (1 - np.diag(hat)[:, None])) ** 2).sum()

        assert fit_ridge(inputs, targets, penalties).penalty == min(penalties, key=left_out_error)


def test_column_that_never_moves_gets_no_weight():
    """A dead channel must not divide by zero, nor weigh in when it first moves."""
    inputs = normal(40, 3)
    inputs[:, 1] = 7.0
    ridge = fit_ridge(inputs, inputs[:, :1])
    assert ridge.weights[1, 0] == 0
    assert np.isfinite(ridge.predict(inputs)).all()


def test_path_holds_the_ridge_of_every_penalty():
    """Slopes left in standardised units, or one penalty's weights beside another's name."""
    inputs, targets = normal(30, 5) * 3 + 1, normal(30, 2, seed=1)
    inputs[:, 2] = 7.0
    path, fresh = ridge_path(inputs, targets), normal(4, 5, seed=2)
    predictions = path.predict(fresh)
    assert predictions.shape == (len(PENALTIES), 4, 2)
    for penalty, predicted in zip(PENALTIES, predictions, strict=True):
        ridge = fit_ridge(inputs, targets, [penalty])
        np.testing.assert_allclose(predicted, ridge.predict(fresh), atol=1e-9)
