"""Griffe extension: our docstrings say of a parameter what it is, not its type, which is annotated.

`name : what it is` would be read as a name and a type; it is handed on as numpydoc's other form,

    name
        what it is

so that the type comes from the annotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Parameters|Attributes|Params)\n(-+)\n((?:(?!^\w+\n-+$).*\n?)*)", re.M)
ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) : (.*)$", re.M)


def rewritten(docstring: str) -> str:
    """A docstring whose parameters have their sentence on the next line."""
    return SECTION.sub(_section, docstring)


def _section(match: re.Match[str]) -> str:
    title, line, body = match.groups()
    entries = re.sub(r"^( {4,})(?=\S)", r"    \1", body, flags=re.M)
    # Two entries on one line, parted by a semicolon, are two.
    entries = re.sub(r"; (\w+) : ", r";\n\1 : ", entries)
    name = "Parameters" if title == "Params" else title
    rule = "-" * len(name) if title == "Params" else line
    return f"{name}\n{rule}\n{ENTRY.sub(_entry, entries)}"


def _entry(match: re.Match[str]) -> str:
    return f"{match.group(1)}\n    {match.group(2)}"


class OurDocstrings(griffe.Extension):
    """Rewrites every docstring as it is found."""

    def on_instance(self, *, obj: griffe.Object, **_rest: Any) -> None:
        """Griffe calls this once per module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)
