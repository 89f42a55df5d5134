"""docs/design.md: the house it draws is the one that stands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "design.md").read_text("utf-8")
TREE, TABLE = TEXT.partition("## The house")[2].partition("## Decisions")[0].split("```")[1:]
PACKAGE = ROOT / "cppncripto_strategy"


def modules(folder: Path) -> set[str]:
    """Files and folders of a folder that a reader can import; folders end with a slash."""
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    inside = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    return files | {name for name in inside if not (folder / name.rstrip("/")).is_symlink()}


def test_every_room_of_the_package_is_in_the_table() -> None:
    """A room that was built, and that no reader hears of."""
    assert modules(PACKAGE) - set(re.findall(r"`([\w/]+)`", TABLE)) == set()


def test_every_file_and_folder_of_feeds_and_models_is_in_the_tree() -> None:
    """A folder that the drawing does not have."""
    drawn = set(re.findall(r"[\w]+/?", TREE))
    for floor in ("feeds", "indicators", "models", "runs"):
        assert f"{floor}/" in drawn
    missing = modules(ROOT / "feeds") | modules(ROOT / "models")
    assert missing - drawn == set()


def test_what_the_table_names_is_there() -> None:
    """A room that was torn down, and stands in the drawing still."""
    named = re.findall(r"`([\w/]+)`", "".join(re.findall(r"^\| (.*?) \|", TABLE, re.M)))
    assert len(named) > 30
    assert [name for name in named if name not in modules(PACKAGE)] == []
