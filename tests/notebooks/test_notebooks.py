"""notebooks/: each runs as it is; what is kept of its outputs is small and of no machine."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 200_000
# Notebook -> what must be among the lines it prints.
PRINTED = {
    "days-like-this-one": ("212 days, 183 of them in sample", "the same days: True"),
    "first-look": ("17,280 rows, 0 without a candle", "True"),
    "reading-the-evidence": ("evidence is a wealth of 20", "of the 20 needed"),
    "with-and-without": ("with     return", "without  return"),
    "your-own-parts": ("both keep it", "yours: Friday Monday Thursday Tuesday Wednesday"),
}
# What differs between machines: paths, and digits of numbers that follow from training.
SLOW = {"days-like-this-one", "reading-the-evidence", "with-and-without", "your-own-parts"}


def marked(path: Path) -> Any:
    marks = [pytest.mark.slow] if path.stem in SLOW else []
    return pytest.param(path, marks=marks, id=path.stem)


def printed(notebook: Any) -> str:
    """Everything that the cells of a notebook printed or showed as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = (out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs)
    return "\n".join(texts)


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    """The names of notebooks/_run.py."""
    return runpy.run_path(str(FOLDER / "_run.py"))


@pytest.mark.parametrize("path", [marked(path) for path in NOTEBOOKS])
def test_notebook_runs_as_it_is(path: Path, run: dict[str, Any], tmp_path: Path) -> None:
    """A notebook that a renamed function broke: a reader's first cell is an error."""
    for module in ("torch", "vectorbt", "duckdb"):
        if path.stem in SLOW:
            pytest.importorskip(module)
    text = printed(run["executed"](path, tmp_path))
    for line in PRINTED[path.stem]:
        assert line in text


def test_every_notebook_has_its_lines() -> None:
    """A notebook that is executed and never looked at."""
    assert {path.stem for path in NOTEBOOKS} == set(PRINTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_outputs_are_there_small_and_of_no_machine(path: Path) -> None:
    """Outputs of another state, megabytes of them, or the paths of whoever ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    text = path.read_text("utf-8")
    for private in ("/home/", "/root/", "/tmp/", "/Users/", "Traceback"):
        assert private not in text
    kept = printed(notebook)
    for line in PRINTED[path.stem]:
        assert line in kept


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_as_the_runner_leaves_it(path: Path, run: dict[str, Any]) -> None:
    """Counters and times that differ at every run, and hide what has changed in a diff."""
    notebook = nbformat.read(path, as_version=4)
    assert json.dumps(run["tidy"](nbformat.from_dict(notebook)), sort_keys=True) == json.dumps(
        nbformat.read(path, as_version=4), sort_keys=True
    )


def test_real_candles_are_read_where_a_store_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A notebook that says real and shows planted, or the reverse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CPPN_BT_REAL_MARKET", raising=False)
    chosen = runpy.run_path(str(FOLDER / "at_hand.py"))["real_or_planted"]
    assert chosen({"a": 1}, {"b": 2})[0] == {"a": 1}
    (tmp_path / "candles").mkdir()
    assert chosen({"a": 1}, {"b": 2})[0] == {"a": 1}  # an empty folder is no store
    (tmp_path / "candles" / "symbol=BTCUSDT").mkdir()
    settings, sentence = chosen({"a": 1}, {"b": 2})
    assert settings == {"b": 2, "candles": {"folder": "candles"}}
    assert "Real candles" in sentence
