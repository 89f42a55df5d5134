"""Named parts that anybody may add to: encoders, objectives, features, labels, report sections, ...

A registry knows three kinds of parts, and looks for them in this order: those of this package
(named as text, imported when asked for), those that plugin files registered (`plugins.py`), and
those of installed packages (entry points). A name means one thing: what exists cannot be replaced.
Left out: what a part has to be able to do. Each family says that itself, and
`cppncripto_strategy.testing` tests it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from cppncripto_strategy.errors import RecipeError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a part comes from.

    Parameters
    ----------
    kind : "package" (this one), "plugin" (a file), "installed" (another distribution) or "process"
        (registered by running code, such as a test or a notebook: it has no source to follow).
    name : module of this package, path of the plugin, or "distribution version".
    digest : SHA-256 of a plugin's content, else "".
    """

    kind: str
    name: str
    digest: str = ""


_PROCESS = Origin("process", "this process")
_registering: ContextVar[Origin] = ContextVar("registering", default=_PROCESS)


@contextmanager
def registering(origin: Origin) -> Iterator[None]:
    """Parts registered inside come from this origin."""
    token = _registering.set(origin)
    try:
        yield
    finally:
        _registering.reset(token)


class Registry(Generic[T]):
    """Parts of one kind by name. One object per kind; lives as long as the process.

    Parameters
    ----------
    kind : what a part is called in errors, such as "encoder".
    group : entry-point group in which installed packages offer theirs.
    built_in : name -> "module:attribute" of the parts of this package.

    Examples
    --------
    >>> from cppncripto_strategy.registry import Registry
    >>> greetings = Registry("greeting", "cppncripto_strategy.greetings", {})
    >>> @greetings.register("hello")
    ... def hello() -> str:
    ...     return "hello"
    >>> greetings.get("hello")()
    'hello'
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._built_in = dict(built_in)
        self._registered: dict[str, tuple[T, Origin]] = {}
        self._loaded: dict[str, T] = {}  # parts of installed packages, once imported
        _ALL.append(self)

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a part under this name; the part itself comes back unchanged.

        Raises
        ------
        RecipeError
            When the name is taken by a part of another origin.
        """

        def add(part: T) -> T:
            origin = _registering.get()
            if name in self._built_in:
                raise RecipeError(f"{self.kind} {name!r} comes with the package: choose a new name")
            if name in self._registered and self._registered[name][1].name != origin.name:
                taken = self._registered[name][1].name
                raise RecipeError(f"{self.kind} {name!r} is registered by {taken} already")
            self._registered[name] = (part, origin)
            return part

        return add

    def forget(self, origin_name: str) -> None:
        """Drop the parts registered by a plugin file of this path (it is about to run again)."""
        kept = {n: held for n, held in self._registered.items() if held[1].name != origin_name}
        self._registered = kept

    def names(self) -> tuple[str, ...]:
        """Every known name; nothing is imported."""
        return tuple(dict.fromkeys([*self._built_in, *self._registered, *self._installed()]))

    def check(self, name: str) -> str:
        """The name, if it is known; nothing is imported.

        Raises
        ------
        RecipeError
            When it is not, with the nearest known name.
        """
        if name in self._built_in or name in self._registered:
            return name
        names = self.names()
        if name not in names:
            close = get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(
                f"{self.kind} {name!r} is unknown{hint}; there are: {', '.join(sorted(names))}."
                " One of your own needs its file in the recipe's plugins = [...]"
            )
        return name

    def get(self, name: str) -> T:
        """The part of this name, imported now if it was not yet.

        Raises
        ------
        RecipeError
            When the name is unknown, or an installed package's part cannot be imported.
        """
        self.check(name)
        if name in self._registered:
            return self._registered[name][0]
        target = self._built_in.get(name)
        if target is None:
            if name not in self._loaded:
                self._loaded[name] = self._load(self._installed()[name])
            return self._loaded[name]
        module, attribute = target.split(":")
        part: T = getattr(import_module(module), attribute)
        return part

    def origin(self, name: str) -> Origin:
        """Where the part of this name comes from. Raises RecipeError when it is unknown."""
        self.check(name)
        if name in self._built_in:
            return Origin("package", self._built_in[name].split(":")[0])
        if name in self._registered:
            return self._registered[name][1]
        found = self._installed()[name].dist
        return Origin("installed", f"{found.name} {found.version}" if found else self.group)

    def _installed(self) -> dict[str, EntryPoint]:
        return installed_points(self.group)

    def _load(self, point: EntryPoint) -> T:
        try:
            part: Any = point.load()
        except Exception as cause:
            raise RecipeError(
                f"{self.kind} {point.name!r} of the installed {point.value} cannot be imported:"
                f" {type(cause).__name__}: {cause}"
            ) from cause
        loaded: T = part
        return loaded


_ALL: list[Registry[Any]] = []


@functools.cache
def installed_points(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name: reading the metadata of every package takes 30 ms."""
    return {point.name: point for point in entry_points(group=group)}


def forget_everywhere(origin_name: str) -> None:
    """Drop what a plugin file of this path registered, of every kind."""
    for registry in _ALL:
        registry.forget(origin_name)
