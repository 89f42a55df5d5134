"""Hash of code: what changes it, what leaves it alone, and what of the package it covers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.codehash import closure, closure_digest
from cppncripto_strategy.models.encoders import ENCODERS
from cppncripto_strategy.models.inputs.features import FEATURES
from cppncripto_strategy.models.labels import LABELS
from cppncripto_strategy.models.pretraining import OBJECTIVES

BUNDLES = "cppncripto_strategy.models.learning.walkforward"
CELLS = "cppncripto_strategy.experiments.runner"

SOURCES = {
    "__init__.py": "",
    "start.py": "from small.middle import step\n",
    "middle.py": "import small.deep.end\n",
    "deep/__init__.py": "SCALE = 1\n",
    "deep/end.py": "import json\n",
    "late.py": "def f():\n    from small.deep import end\n    return end\n",
    "kinds.py": 'KINDS = {"end": "small.deep.end:End", "gone": "small.deep.gone:End"}\n',
    "near.py": "from .deep import end\n",
    "typed.py": "import typing\nif typing.TYPE_CHECKING:\n    from small.deep import end\n",
    "unrelated.py": "from small import start\n",
}
USERS_OF_END = ["start", "middle", "late", "kinds", "near"]


@pytest.fixture
def digest(tmp_path_factory, monkeypatch):
    """Digest of `small.<module>` in a package written with some of its files replaced."""

    def of(module: str, changes: dict[str, str] | None = None) -> str:
        root = tmp_path_factory.mktemp("site")
        for name, source in {**SOURCES, **(changes or {})}.items():
            path = root / "small" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(root)
            closure_digest.cache_clear()
            return closure_digest(f"small.{module}")

    yield of
    closure_digest.cache_clear()


@pytest.mark.parametrize("module", USERS_OF_END)
def test_changed_import_of_an_import_changes_the_digest(digest, module):
    """A cache that serves results of code that is no longer there, however it is imported."""
    assert digest(module) != digest(module, {"deep/end.py": "import json  # mended\n"})


@pytest.mark.parametrize("module", USERS_OF_END)
def test_changed_package_around_an_import_changes_the_digest(digest, module):
    """Importing small.deep.end runs small/deep/__init__.py too."""
    assert digest(module) != digest(module, {"deep/__init__.py": "SCALE = 2\n"})


@pytest.mark.parametrize("module", [*USERS_OF_END, "typed"])
def test_unrelated_module_leaves_the_digest_alone(digest, module):
    """A year of training thrown away for a word in a report."""
    assert digest(module) == digest(module, {"unrelated.py": "import small.start, json\n"})


def test_import_of_the_type_checker_alone_leaves_the_digest_alone(digest):
    """An import that never runs cannot change a result."""
    assert digest("typed") == digest("typed", {"deep/end.py": "import csv\n"})
    branch = SOURCES["typed.py"] + "else:\n    from small.deep import end\n"
    assert digest("typed", {"typed.py": branch}) != digest(
        "typed", {"typed.py": branch, "deep/end.py": "import csv\n"}
    )


def test_line_moved_to_the_next_module_changes_the_digest(digest):
    """Sources hashed end to end: the same bytes in all, another program."""
    before = {"a.py": "X = 1\nY = 2\n", "b.py": "", "start.py": "from small import a, b\n"}
    after = {**before, "a.py": "X = 1\n", "b.py": "Y = 2\n"}
    assert digest("start", before) != digest("start", after)


def test_circle_of_imports_ends(digest):
    """A walk that never returns."""
    assert digest("middle", {"deep/end.py": "import small.middle\n"})


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_digest_follows_reachability(tmp_path_factory, data):
    """Any graph of imports: a change is seen exactly where the changed module can be reached."""
    count = data.draw(st.integers(1, 6), "modules")
    edges = data.draw(
        st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))), "imports"
    )
    changed = data.draw(st.integers(0, count - 1), "changed")
    digests = []
    for body in ("", "X = 1\n"):
        root = tmp_path_factory.mktemp("site")
        (root / "drawn").mkdir()
        for n in range(count):
            lines = [f"import drawn.m{b}\n" for a, b in sorted(edges) if a == n]
            (root / "drawn" / f"m{n}.py").write_text(
                "".join(lines) + (body if n == changed else "")
            )
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(root)
            closure_digest.cache_clear()
            digests.append(closure_digest("drawn.m0"))
    reached = {0}
    for _ in range(count):
        reached |= {b for a, b in edges if a in reached}
    assert (digests[0] != digests[1]) == (changed in reached)
    closure_digest.cache_clear()


def test_unknown_module_is_an_error():
    """A misspelt name that hashes nothing: caches that never go stale."""
    with pytest.raises(ModuleNotFoundError, match=r"cppncripto_strategy\.modles"):
        closure_digest("cppncripto_strategy.modles")


def test_nothing_is_imported():
    """A hash that loads torch, or runs a plug-in to read it."""
    script = (
        "import sys; from cppncripto_strategy.codehash import closure_digest\n"
        f"print(closure_digest({BUNDLES!r})); assert {BUNDLES!r} not in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == closure_digest(BUNDLES)


def names(*modules: str) -> set[str]:
    """Files of a closure as they lie below the repository."""
    root = Path(__file__).parents[2]
    return {path.resolve().relative_to(root).as_posix() for path in closure(*modules)}


def test_cell_covers_what_its_numbers_follow_from():
    """The days of a year changed in evaluation/statistics.py, and stale cells stayed in use."""
    inside = {"strategy.py", "broker.py", "tables.py", "recipe.py", "evaluation/statistics.py"}
    wanted = {f"cppncripto_strategy/{name}" for name in inside}
    wanted |= {"feeds/planted.py", "feeds/replay.py", "indicators/micro.py"}
    wanted |= {"models/micronet.py", "models/labels/fixed.py"}
    assert wanted <= names(CELLS)
    assert not {name for name in names(CELLS) if "/commands/" in name or "paper" in name}


@pytest.mark.parametrize("registry", [ENCODERS, FEATURES, LABELS, OBJECTIVES], ids=lambda r: r.kind)
def test_bundle_covers_every_part_that_a_registry_names(registry):
    """An encoder named by text alone, repaired, whose old weights are used again."""
    origins = [registry.origin(name) for name in registry.names()]
    modules = {origin.name for origin in origins if origin.kind == "package"}
    assert len(modules) >= 3
    assert set(closure(*modules)) <= set(closure(BUNDLES))


def test_bundle_does_not_cover_what_judges_it():
    """Every bundle trained again for a word in a report or in a leak check."""
    assert not {name for name in names(BUNDLES) if "reports" in name or "judging" in name}
