"""What is released: the same bytes wherever it is built, and files that say what it is."""

from __future__ import annotations

import io
import re
import runpy
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import cppncripto_strategy

ROOT = Path(__file__).parents[1]
# The kinds of change of https://keepachangelog.com/en/1.1.0/.
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
RELEASE = runpy.run_path(str(ROOT / ".ci" / "build_release.py"))
EPOCH_S = 1_700_000_000
FILES = {"p/a.py": b"a = 1\n", "p/z.txt": b"z" * 5000, "p/m/run": b"#!/bin/sh\n"}


def sdist(order: list[str], mtime: float, owner: str, umask: int) -> bytes:
    """An archive as somebody's machine would make it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in order:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(FILES[name]), mtime, owner
            member.mode = (0o777 if name.endswith("run") else 0o666) & ~umask
            archive.addfile(member, io.BytesIO(FILES[name]))
    return packed.getvalue()


def wheel(order: list[str], year: int, mode: int) -> bytes:
    """A wheel as somebody's machine would make it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in order:
            entry = zipfile.ZipInfo(name, (year, 1, 2, 3, 4, 6))
            entry.external_attr = mode << 16
            archive.writestr(entry, FILES[name])
    return packed.getvalue()


def test_sdist_does_not_depend_on_who_built_it_or_when() -> None:
    """Two builds of one commit that nobody can compare."""
    repack: Any = RELEASE["repack_sdist"]
    names = sorted(FILES)
    one = repack(sdist(names, 1e9, "ana", 0o022), EPOCH_S)
    assert one == repack(sdist(names[::-1], 1.5e9 + 0.25, "joão", 0o002), EPOCH_S)
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        members = archive.getmembers()
        contents = {m.name: archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]
        modes = {m.name: m.mode for m in members}
    assert contents == FILES
    assert modes == {"p/a.py": 0o644, "p/z.txt": 0o644, "p/m/run": 0o755}


def test_wheel_does_not_depend_on_who_built_it_or_when() -> None:
    """A checkout's umask in the bytes of a release."""
    repack: Any = RELEASE["repack_wheel"]
    names = sorted(FILES)
    one = repack(wheel(names, 2001, 0o100664), EPOCH_S)
    assert one == repack(wheel(names[::-1], 2024, 0o100644), EPOCH_S)
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert {entry.date_time for entry in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def test_citation_is_of_this_version_and_licence() -> None:
    """A paper that cites a version that never was."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == project()["version"] == cppncripto_strategy.__version__
    assert cited["license"] == project()["license"] == "MIT"
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"]
    assert cited["authors"]
    assert str(cited["date-released"]) == released()[0][1]


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text("utf-8")


def released() -> list[tuple[str, str]]:
    """(version, date) of the changelog's versions, in the order they stand there."""
    return re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", changelog(), re.M)


def test_changelog_keeps_its_form() -> None:
    """A release that nobody wrote down, a version out of order, a line under no kind of change."""
    headings = re.findall(r"^## (.+)$", changelog(), re.M)
    assert headings == ["[Unreleased]", *(f"[{name}] - {date}" for name, date in released())]
    assert released()[0][0] == project()["version"]
    assert released() == sorted(released(), key=lambda entry: entry[1], reverse=True)
    assert set(re.findall(r"^### (.+)$", changelog(), re.M)) <= KINDS
    for part in re.split(r"^## ", changelog(), flags=re.M)[1:]:
        before, *kinds = re.split(r"^### ", part, flags=re.M)
        assert not re.findall(r"^- ", before, re.M), "a change under no kind"
        names = [kind.splitlines()[0] for kind in kinds]
        assert len(names) == len(set(names)), "one kind, two places"


def test_classifiers_name_the_pythons_of_the_range() -> None:
    """A Python that is promised and not said, or said and not promised."""
    low, high = map(int, re.findall(r"3\.(\d+)", project()["requires-python"]))
    classifiers = project()["classifiers"]
    named = re.findall(r"Python :: 3\.(\d+)", "\n".join(classifiers))
    assert named == [str(minor) for minor in range(low, high)]
    assert not [line for line in classifiers if line.startswith("License")]  # by PEP 639


TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_template_is_a_form(path: Path) -> None:
    """A form that is not shown, because a name is missing or an identifier is there twice."""
    form = yaml.safe_load(path.read_text("utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_pull_requests_are_asked_for_what_ci_checks() -> None:
    """A check list that knows other commands than the page for contributors."""
    asked = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text("utf-8")
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for command in ("pytest", ".ci/run", "ruff check . && ruff format --check . && mypy"):
        assert command in asked
        assert command in guide
    assert len(TEMPLATES) > 2


def hooks() -> list[dict[str, Any]]:
    found = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    return [hook for repo in found["repos"] for hook in repo["hooks"]]


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_pre_commit_runs_what_ci_runs(command: str) -> None:
    """A commit that is green here and red there."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.search(rf"^{re.escape(command)}$", script, re.M)
    assert command in [hook["entry"] for hook in hooks()]


def test_pre_commit_needs_no_network_and_its_tests_are_there() -> None:
    """A hook of another version of ruff than the one that CI has."""
    for hook in hooks():
        assert hook["language"] == "system"
        for path in re.findall(r"tests/[\w/]+\.py", hook["entry"]):
            assert (ROOT / path).is_file()
