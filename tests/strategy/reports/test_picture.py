"""The picture of a run."""

from __future__ import annotations

from cppncripto_strategy.reports.picture import save_picture


def test_picture_is_a_png_of_readable_size(run, tmp_path, no_warnings):
    """Dies here: a picture that needs a screen to be drawn."""
    path = tmp_path / "run.png"
    save_picture(path, run)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(content[k : k + 4], "big") for k in (16, 20))
    assert (width, height) == (1210, 880)
