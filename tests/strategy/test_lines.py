"""Lines read by bar number: the right bar, NaN where absent, an error where forgotten."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import backtrader as bt
import numpy as np
import pytest

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.lines import line_reader, named_line, past_values, past_view, score_line

VALUES = [1.0, 2.0, 4.0, 8.0]


def filled_line(exactbars: int = 0) -> Any:
    """A line that received VALUES, keeping all of them or only the last."""
    line = bt.LineBuffer()
    if exactbars:
        line.qbuffer()
    for value in VALUES:
        line.forward()
        line[0] = value
    return line


def test_a_line_is_read_at_any_bar_it_keeps() -> None:
    """A reader that answers with the end of the run, as `line[0]` does under runonce, dies here."""
    read = line_reader(filled_line())
    assert [read(bar) for bar in range(4)] == VALUES
    assert line_reader(filled_line(exactbars=1))(3) == VALUES[-1]
    assert math.isnan(line_reader(None)(0))


def test_the_past_is_copied_or_refused() -> None:
    """A view that stops the buffer from growing, or a past of other bars than asked, dies here."""
    line = filled_line()
    values = past_values(line, 3)
    line.forward()
    assert VALUES[:3] == values.tolist()
    assert np.isnan(past_values(None, 2)).tolist() == [True, True]
    with pytest.raises(RecipeError, match="1 of 4 bars"):
        past_values(filled_line(exactbars=1), 4)


def test_view_of_a_line_is_no_copy_and_one_that_cannot_be_is() -> None:
    """A copy that doubles a run's memory; a view of values that a line has forgotten."""
    line = filled_line()
    view = past_view(line, 3)
    assert np.shares_memory(view, np.frombuffer(line.array))
    assert VALUES[:3] == view.tolist() == past_values(line, 3).tolist()
    assert not past_view(line, 0).size
    assert np.isnan(past_view(None, 2)).tolist() == [True, True]
    with pytest.raises(RecipeError, match="1 of 4 bars"):
        past_view(filled_line(exactbars=1), 4)


def test_lines_are_found_by_name_without_being_asked_for_truth() -> None:
    """A truth test on a line, which makes a new line while a strategy is built, dies here."""

    class Line:
        def __bool__(self) -> bool:
            raise AssertionError("asked for truth")

    class Lines(list[Any]):
        score = Line()

        def getlinealiases(self) -> tuple[str, ...]:
            return ("other", "score")

    indicator = SimpleNamespace(lines=Lines([Line()]))
    assert score_line(indicator) is Lines.score
    assert named_line(indicator, "p_buy") is None
    assert named_line(None, "score") is None
    bare = SimpleNamespace(lines=[Line()])
    assert score_line(bare) is bare.lines[0]
