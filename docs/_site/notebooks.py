"""A notebook as a page: its text, its code, and the outputs that are kept in it; nothing is run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any


def to_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """(text of the page, pictures by name) of a notebook; its title is left to the page."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    parts: list[str] = []
    images: dict[str, bytes] = {}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append("\n".join(x for x in source.splitlines() if not x.startswith("# ")))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            text, picture = shown(output)
            if picture:
                name = f"{path.stem}-{number}-{len(images)}.png"
                images[name] = picture
                parts.append(f"![Picture made by the cell above]({name})")
            elif text:
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts), images


def shown(output: dict[str, Any]) -> tuple[str, bytes]:
    """(text, PNG) of one output; of several forms the picture counts before the text."""
    if output["output_type"] == "stream":
        return "".join(output["text"]), b""
    data = output.get("data", {})
    if "image/png" in data:
        return "", base64.b64decode("".join(data["image/png"]))
    return "".join(data.get("text/plain", "")), b""
