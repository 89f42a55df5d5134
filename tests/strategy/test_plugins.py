"""Plugin files and registries: what a user adds is known by name, and by its content."""

from __future__ import annotations

import hashlib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cppncripto_strategy import registry as registry_module
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.plugins import load_plugins, loaded_plugins
from cppncripto_strategy.registry import Registry

GREETINGS: Registry[str] = Registry(
    "greeting", "cppncripto_strategy.greetings", {"first": "string:digits"}
)
HEAD = (
    "from cppncripto_strategy.registry import _ALL\n"
    "REGISTRY = [r for r in _ALL if r.kind == 'greeting'][0]\n"
)


@pytest.fixture(autouse=True)
def _clean():
    yield
    GREETINGS._registered.clear()


def write(folder: Path, body: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(HEAD + body)
    return path


def test_a_plugin_registers_and_is_known_by_its_content(tmp_path: Path) -> None:
    """A plugin whose change no cache key would notice dies here."""
    path = write(tmp_path, "REGISTRY.register('hi')('hello')\n")
    (plugin,) = load_plugins([path])
    assert GREETINGS.get("hi") == "hello"
    assert plugin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    origin = GREETINGS.origin("hi")
    assert (origin.kind, origin.name, origin.digest) == ("plugin", str(path), plugin.sha256)
    assert plugin in loaded_plugins()


def test_a_changed_plugin_replaces_what_it_registered(tmp_path: Path) -> None:
    """A name that stays behind after its file dropped it dies here."""
    load_plugins([write(tmp_path, "REGISTRY.register('hi')('hello')\n")])
    load_plugins([write(tmp_path, "REGISTRY.register('ho')('again')\n")])
    assert GREETINGS.names() == ("first", "ho")


def test_an_unchanged_plugin_runs_once(tmp_path: Path) -> None:
    """A second run would make new classes, which no longer are the ones in use."""
    path = write(tmp_path, "REGISTRY.register('hi')(object())\n")
    load_plugins([path])
    first = GREETINGS.get("hi")
    load_plugins([path])
    assert GREETINGS.get("hi") is first


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1 / 0\n", r"line 3: ZeroDivisionError"),
        ("def broken(:\n", r"line 3: SyntaxError"),
        ("import nothing_of_this_name\n", r"ModuleNotFoundError: No module named"),
        ("REGISTRY.register('first')('mine')\n", r"comes with the package"),
    ],
)
def test_a_failing_plugin_is_named_with_its_line(tmp_path: Path, body: str, message: str) -> None:
    """A traceback through our own loader, or a half-registered plugin, dies here."""
    path = write(tmp_path, body)
    with pytest.raises(RecipeError, match=message):
        load_plugins([path])
    assert GREETINGS.names() == ("first",)
    assert path not in [plugin.path for plugin in loaded_plugins()]


def test_an_absent_plugin_is_named(tmp_path: Path) -> None:
    """A bare FileNotFoundError dies here."""
    with pytest.raises(RecipeError, match=r"absent\.py cannot be read"):
        load_plugins([tmp_path / "absent.py"])


def test_two_plugins_cannot_share_a_name(tmp_path: Path) -> None:
    """The second one would silently stand in for the first."""
    load_plugins([write(tmp_path, "REGISTRY.register('hi')('a')\n", "a.py")])
    with pytest.raises(RecipeError, match=r"registered by .*a\.py already"):
        load_plugins([write(tmp_path, "REGISTRY.register('hi')('b')\n", "b.py")])


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    """A typo that has to be searched for by eye dies here."""
    with pytest.raises(RecipeError, match=r"did you mean 'first'\?"):
        GREETINGS.get("frist")


def test_parts_of_installed_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point nobody looks at dies here; so does an import error without a name."""
    points = [
        EntryPoint("theirs", "string:ascii_letters", GREETINGS.group),
        EntryPoint("gone", "no_such_module:x", GREETINGS.group),
    ]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points)
    registry_module.installed_points.cache_clear()
    assert GREETINGS.get("theirs").startswith("abc")
    assert GREETINGS.origin("theirs").kind == "installed"
    monkeypatch.setattr(EntryPoint, "load", lambda point: pytest.fail("imported a second time"))
    assert GREETINGS.get("theirs").startswith("abc")
    monkeypatch.undo()
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points)
    with pytest.raises(RecipeError, match="no_such_module"):
        GREETINGS.get("gone")
    registry_module.installed_points.cache_clear()


def test_built_in_parts_are_imported_when_asked_for() -> None:
    """The dotted text must lead to the very object."""
    import string

    assert GREETINGS.get("first") is string.digits
    assert GREETINGS.origin("first").name == "string"
