"""Self-contained HTML pages: one style sheet, tables, cards, and plotly's script inlined once.

A page made here asks the network for nothing and opens from disk, on a desk or a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from cppncripto_strategy.results import write_text

MISSING = "–"

STYLE = """
:root{--ink:#1b2430;--soft:#5b6775;--line:#e3e7ec;--paper:#fff;--ground:#f5f7f9;--good:#14804a;
--bad:#b42318;--plain:#8a5a00;--accent:#1f5fbf}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
header p{color:var(--soft);margin:2px 0 0}
h1{font-size:26px;line-height:1.2;margin:0}
h2{font-size:18px;margin:0 0 4px}
h3{font-size:15px;margin:18px 0 4px}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:18px 20px;
margin-top:18px;overflow:hidden}
section>p{color:var(--soft);margin:0 0 10px;max-width:76ch}
.verdict{border-left:6px solid var(--plain)}
.verdict.good{border-left-color:var(--good)}.verdict.bad{border-left-color:var(--bad)}
.verdict h2{font-size:22px}.verdict p{color:var(--ink);margin:4px 0 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;
margin-top:18px}
.card{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.card b{display:block;font-size:21px;font-weight:650;font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--soft);font-size:13px;white-space:normal;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;padding-left:0}
td.text{text-align:left;white-space:normal}
tr:last-child td{border-bottom:0}
.verdict.good h2{color:var(--good)}.verdict.bad h2{color:var(--bad)}
section>p.switch{text-align:right;margin:0 0 4px;max-width:none}
.switch button{font:inherit;font-size:12px;padding:2px 10px;border:1px solid var(--line);
border-radius:6px;background:var(--paper);color:var(--soft);cursor:pointer}
.plot{width:100%;min-height:200px}
details{margin-top:8px}summary{cursor:pointer;color:var(--accent)}
pre{overflow-x:auto;background:var(--ground);padding:12px;border-radius:8px;font-size:12.5px;
line-height:1.45}
footer{color:var(--soft);font-size:13px;margin-top:24px}
@media(max-width:640px){main{padding:16px 10px 40px}section{padding:14px 12px}h1{font-size:21px}
.verdict h2{font-size:19px}
td:first-child,th{white-space:normal;min-width:76px}th,td{padding:6px 6px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""

# The empty icon keeps a browser from asking a server for one.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>{style}</style>{script}</head>
<body><main>
<header><h1>{title}</h1>{subtitle}</header>
{body}
<footer>{footer}</footer>
</main>{end}</body></html>
"""

# On a touch screen a finger on a chart must scroll the page, not zoom the chart.
_TOUCH_SCRIPT = """<script>if(matchMedia("(pointer:coarse)").matches)
document.querySelectorAll(".plotly-graph-div").forEach(d=>Plotly.relayout(d,{dragmode:false}));
</script>"""


@cache
def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def write_page(
    path: Path, title: str, blocks: Iterable[str], subtitle: str = "", footer: str = ""
) -> None:
    """Write one page of ready HTML blocks, atomically; plotly's script only where a block draws."""
    body = "\n".join(block for block in blocks if block)
    drawn = "Plotly.newPlot" in body
    page = _PAGE.format(
        title=escape(title),
        style=STYLE,
        script=_plotly_script() if drawn else "",
        subtitle=f"<p>{escape(subtitle)}</p>" if subtitle else "",
        body=body,
        end=_TOUCH_SCRIPT if drawn else "",
        footer=escape(footer),
    )
    write_text(path, page)


def section(title: str, *content: str, note: str = "", kind: str = "") -> str:
    """A titled block; `note` is a sentence under the title (plain text)."""
    inner = "\n".join(part for part in content if part)
    words = f"<p>{escape(note)}</p>" if note else ""
    return f'<section class="{escape(kind)}"><h2>{escape(title)}</h2>{words}{inner}</section>'


def section_text(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def cards(items: Sequence[tuple[str, str]]) -> str:
    """Small boxes of (label, value) that wrap on a phone."""
    boxes = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for label, value in items
    )
    return f'<div class="cards">{boxes}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = ()) -> str:
    """A table of ready text (escaped here); columns in `text` are left-aligned prose."""
    left = set(text)
    title = "".join(
        f"<th{' style=text-align:left' if k in left else ''}>{escape(cell)}</th>"
        for k, cell in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=text' if k in left else ''}>{escape(cell)}</td>"
            for k, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    head_and_body = f"<thead><tr>{title}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{head_and_body}</table></div>'


def folded(summary: str, content: str) -> str:
    """Content behind a line that opens on a tap."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def preformatted(text: str) -> str:
    """Text as it is, in a fixed-width box."""
    return f"<pre>{escape(text)}</pre>"


def scale_switch(name: str) -> str:
    """Two buttons that draw the first vertical axis of figure `name` linear or logarithmic."""
    call = f"Plotly.relayout('{name}',{{'yaxis.type':'%s'}})"
    buttons = " ".join(
        f'<button onclick="{call % kind}">{word}</button>'
        for kind, word in (("linear", "linear"), ("log", "logarithmic"))
    )
    return f'<p class="switch">{buttons}</p>'


def figure(plot: Any, name: str) -> str:
    """A plotly figure as a block that fits the width; the page holds the script."""
    html: str = plot.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True, "showTips": False},
    )
    return f'<div class="plot">{html}</div>'


# ---------------------------------------------------------------- numbers as text


def percent(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """0.1234 as "12.34 %"; a dash where undefined."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:{'+' if sign else ''},.{digits}f} %"


def number(value: float | None, digits: int = 2) -> str:
    """A number with thousands separated; a dash where undefined."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.{digits}f}"


def whole(value: float | None) -> str:
    """A count; a dash where undefined."""
    return MISSING if value is None else f"{int(value):,}"


def interval(estimate: Mapping[str, Any] | None, scale: float = 100, unit: str = " %") -> str:
    """An estimate as "61.2 % [58.0, 64.1]"; without brackets where it has no interval."""
    if estimate is None or estimate["value"] is None:
        return MISSING
    text = f"{scale * estimate['value']:.1f}{unit}"
    if estimate["low"] is None:
        return text
    return f"{text} [{scale * estimate['low']:.1f}, {scale * estimate['high']:.1f}]"


def anything(value: Any, name: str = "") -> str:
    """A value of a settings or manifest table as text; ratios and hit ratios become percent."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        share = name.endswith("ratio") or name.startswith("hit ")
        return percent(value) if share else f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 and not name.endswith("seed") else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(anything(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {anything(item)}" for key, item in value.items())
    return str(value)
