"""Every script in examples/ runs as it is, offline, and prints what its reader came for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
MAX_LINES = 60
# Script -> what must be among its printed lines.
PRINTED = {
    "your_own_score": ("signals,", "fees"),
    "candles_of_your_own": ("a gap, kept as a gap", "3,836 candles"),
    "run_a_backtest": ("with macro", "buy and hold", "breaking even takes", "ceiling"),
    "indicators_in_your_cerebro": ("have a score", "fills; the account"),
    "days_like_this_one": ("days embedded", "distance", "volatility forecast"),
}
TRAINING = ("run_a_backtest", "indicators_in_your_cerebro", "days_like_this_one")


def script(name: str) -> object:
    marks = [pytest.mark.slow] if name in TRAINING else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [script(name) for name in PRINTED])
def test_example_runs_and_prints(name: str, tmp_path: Path) -> None:
    """An example that a renamed function broke, or that prints nothing worth reading."""
    if name == "candles_of_your_own":
        pytest.importorskip("duckdb")
    result = subprocess.run(
        [sys.executable, "-W", "error:::cppncripto_strategy", str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    for text in PRINTED[name]:
        assert text in result.stdout, result.stdout


def test_examples_are_short_and_listed() -> None:
    """A script that nobody finds, or that nobody tests, or that has grown into a program."""
    scripts = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert set(scripts) == set(PRINTED)
    index = (EXAMPLES / "README.md").read_text("utf-8")
    for name, path in scripts.items():
        assert f"({name}.py)" in index
        assert len(path.read_text("utf-8").splitlines()) < MAX_LINES, name
