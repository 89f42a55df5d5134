"""Pages: what they fetch, what they escape, how blocks become HTML."""

from __future__ import annotations


def test_requests_finds_what_a_browser_would_fetch(tmp_path, requests_of):
    """Dies here: an offline check that finds nothing because it looks at nothing."""
    page = tmp_path / "page.html"
    page.write_text(
        '<link href="//fonts.example/a.css"><script src="https://cdn.example/p.js"></script>'
        "<style>@import 'x.css'; a{background:url(http://e.example/i.png)}</style>"
        '<a href="https://fine.example">a link is not a request</a>'
    )
    assert len(requests_of(page)) == 4
