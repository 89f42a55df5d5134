"""What a page is made of: sections that hold tables, cards, charts, code and text.

Nothing here is HTML: templates turn blocks into it, and escape every text. Whoever writes a section
may also hand over a pandas table, a plotly figure, plain text, or HTML of their own wrapped in
`markupsafe.Markup`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from markupsafe import Markup

from cppncripto_strategy.reports.values import MISSING, anything

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_HEIGHT = 360


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph of plain text."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Html:
    """HTML that is taken as it is: whoever made it has escaped it."""

    html: Markup
    kind: ClassVar[str] = "html"


@dataclass(frozen=True, slots=True)
class Code:
    """Text in a fixed-width box, line breaks kept."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True, slots=True)
class Cards:
    """Small boxes that wrap on a phone.

    Parameters
    ----------
    items : (label, value) each, the value drawn large.
    """

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ready text.

    Parameters
    ----------
    head : headings; all empty for a table without a heading row.
    rows : cells as text, as many as headings.
    text : numbers of the columns that hold prose: left-aligned, wrapped. Others hold numbers, and
        are right-aligned; the first column is always left-aligned.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[int] = ()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Fold:
    """A block behind a line that opens on a tap."""

    summary: str
    content: Block
    kind: ClassVar[str] = "fold"


@dataclass(frozen=True, slots=True)
class Chart:
    """A plotly figure.

    Parameters
    ----------
    figure : a plotly figure; its layout's height is in pixels, its width is the page's.
    name : its `id` in the page, unique there.
    title, note : heading and a sentence for the reader; leave them to the section where it holds
        nothing else.
    scales : whether two buttons switch the first vertical axis between linear and logarithmic.
    """

    figure: Any
    name: str
    title: str = ""
    note: str = ""
    scales: bool = False
    kind: ClassVar[str] = "chart"

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.figure.layout.height or DEFAULT_HEIGHT)

    @property
    def json(self) -> Markup:
        """The figure as JSON that may stand in a script.

        Plotly writes <, > and / inside it as \\u003c and so on, so no text in a figure ends the
        script element.
        """
        return Markup(self.figure.to_json())


Block: TypeAlias = Text | Html | Code | Cards | Table | Fold | Chart
# One thing a section may hold: see `Section`. pandas and plotly are not imported to say so.
Content: TypeAlias = Any


@dataclass(frozen=True, eq=False)
class Section:
    """A titled part of a page.

    Parameters
    ----------
    title : its heading, plain text.
    content : one thing or a list of them: text, a pandas table, a plotly figure,
        `markupsafe.Markup`, or a block of this module.
    note : a sentence under the heading: what the reader looks at.
    kind : style class: "", "bare" (no frame), "verdict", "verdict good", "verdict bad", "failed".
    after : name of the report section this one follows; "" puts it at the end. Only reports of
        runs look at it.

    Examples
    --------
    >>> from cppncripto_strategy.reports.blocks import Section
    >>> Section("Weekends", "No order was sent on a Sunday.", after="accounts").title
    'Weekends'
    """

    title: str
    content: Content | Sequence[Content] = ()
    note: str = ""
    kind: str = ""
    after: str = ""

    def blocks(self, name: str = "section") -> list[Block]:
        """The content as blocks.

        Parameters
        ----------
        name : of the section; figures that have no name of their own are named after it.

        Raises
        ------
        TypeError
            When something in it is none of the kinds named above.
        """
        several = isinstance(self.content, (list, tuple))
        parts: Iterable[Any] = self.content if several else (self.content,)
        return [as_block(part, f"{name}-{place}") for place, part in enumerate(parts)]


def as_block(part: Content, name: str) -> Block:
    """One piece of content as a block. Raises TypeError when it cannot be one."""
    if isinstance(part, (Text, Html, Code, Cards, Table, Fold, Chart)):
        return part
    if isinstance(part, str):  # Markup is a str
        return Html(part) if isinstance(part, Markup) else Text(part)
    if hasattr(part, "to_plotly_json") and hasattr(part, "to_json"):
        return Chart(part, re.sub(r"[^A-Za-z0-9_-]", "-", name))
    if hasattr(part, "columns") and hasattr(part, "itertuples"):
        return from_frame(part)
    raise TypeError(
        f"a section cannot show {type(part).__name__}: give it text, a pandas table, a plotly"
        " figure, markupsafe.Markup or a block of cppncripto_strategy.reports.blocks"
    )


def from_frame(frame: pd.DataFrame, show: Callable[[Any], str] = anything) -> Table:
    """A pandas table as a block; columns of numbers are right-aligned, a missing value is a dash.

    Parameters
    ----------
    frame : its index is shown unless it only counts the rows.
    show : turns a value that is not missing into text.
    """
    import pandas as pd

    if not isinstance(frame.index, pd.RangeIndex) or frame.index.name is not None:
        frame = frame.reset_index()
    columns = [frame.iloc[:, place].tolist() for place in range(frame.shape[1])]
    text = [
        place
        for place, values in enumerate(columns)
        if not all(isinstance(value, Real) or _missing(value) for value in values)
    ]
    shown = [[MISSING if _missing(value) else show(value) for value in v] for v in columns]
    return Table([str(name) for name in frame.columns], list(zip(*shown, strict=True)), text)


def _missing(value: Any) -> bool:
    import pandas as pd

    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
