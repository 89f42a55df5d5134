"""Self-contained HTML pages from templates: style sheet, tables and plotly's script inlined once.

Every text is escaped by the templates. A page made here asks the network for nothing and opens from
disk, on a desk or a phone. What stands on it is said with the blocks of `blocks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cppncripto_strategy.reports.blocks import Section
from cppncripto_strategy.results import write_text

# A minus before a number; not the hyphens of dates, names and exponents.
_MINUS = re.compile(r"(?<![\w.:/-])-(?=\d)")


def minus(text: str) -> str:
    """The text with a typographic minus (as wide as a plus) before its negative numbers."""
    return _MINUS.sub("−", str(text))


@cache
def environment() -> Environment:
    """The templates of this package: everything escaped, an unknown name is an error."""
    found = Environment(
        loader=PackageLoader("cppncripto_strategy.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["minus"] = minus
    return found


@cache
def _plotly_script() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def render(template: str, **values: Any) -> Markup:
    """A template of this package, filled in."""
    return Markup(environment().get_template(template).render(values))


def render_section(section: Section, name: str = "section") -> Markup:
    """One section as HTML.

    Parameters
    ----------
    name : names those of its figures that have no name; unique in the page.

    Raises
    ------
    TypeError
        When it holds something that no block can show.
    """
    return render("section.html", section=section, blocks=section.blocks(name))


def write_page(
    path: Path,
    title: str,
    sections: Iterable[Section | Markup],
    subtitle: str = "",
    footer: str = "",
) -> None:
    """Write one page, whole or not at all; plotly's script only where something is drawn.

    Parameters
    ----------
    sections : in order; those rendered already stay as they are.
    """
    ready = [
        section if isinstance(section, Markup) else render_section(section, f"section{place}")
        for place, section in enumerate(sections)
    ]
    page = render(
        "page.html",
        title=title,
        subtitle=subtitle,
        footer=footer,
        sections=ready,
        plotly=_plotly_script() if any('class="plotly-graph-div"' in s for s in ready) else "",
    )
    write_text(path, page)
