"""Plugin files: Python files of a user's own that register encoders, features, labels, ...

A recipe names them (`plugins = ["mine.py"]`, relative to it). Each is run once, as a module of its
own, before the recipe is judged; what it registers is known from then on in this process. Its
content's SHA-256 goes into every cache key, manifest and bundle, so that a changed plugin is
another program. Only the file itself is followed, not what it imports beside it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.registry import Origin, forget_everywhere, registering


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin file that was run.

    Parameters
    ----------
    path : absolute path; sha256 : of its content, in hex.
    """

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, as bundles and manifests record it."""
        return self.path.name


_LOADED: dict[Path, Plugin] = {}


def load_plugins(paths: Iterable[Path]) -> tuple[Plugin, ...]:
    """Run the plugin files that were not run yet, or have changed since, in order.

    Raises
    ------
    RecipeError
        When a file cannot be read or fails while it runs; the message names file, line and cause.
    """
    return tuple(_load(Path(path)) for path in paths)


def loaded_plugins() -> tuple[Plugin, ...]:
    """Every plugin file that was run in this process."""
    return tuple(_LOADED.values())


def _load(path: Path) -> Plugin:
    path = path.expanduser().resolve()
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise RecipeError(f"plugin {path} cannot be read: {cause.strerror or cause}") from cause
    plugin = Plugin(path, hashlib.sha256(content).hexdigest())
    if _LOADED.get(path) == plugin:
        return plugin
    forget_everywhere(str(path))
    _LOADED.pop(path, None)
    _run(plugin, content)
    _LOADED[path] = plugin
    return plugin


def _run(plugin: Plugin, content: bytes) -> None:
    """Execute the file as a module that pickling, dataclasses and tracebacks can find."""
    name = f"cppncripto_plugin_{plugin.path.stem}_{plugin.sha256[:12]}"
    spec = spec_from_loader(name, loader=None, origin=str(plugin.path))
    assert spec is not None
    module = module_from_spec(spec)
    module.__file__ = str(plugin.path)
    sys.modules[name] = module
    try:
        code = compile(content, str(plugin.path), "exec")
        with registering(Origin("plugin", str(plugin.path), plugin.sha256)):
            exec(code, module.__dict__)
    except BaseException as cause:
        del sys.modules[name]
        forget_everywhere(str(plugin.path))
        if isinstance(cause, Exception) and not isinstance(cause, RecipeError):
            raise RecipeError(_explain(plugin.path, cause)) from cause
        raise


def _explain(path: Path, cause: Exception) -> str:
    line = getattr(cause, "lineno", None)
    trace = cause.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f"{path}, line {line}" if line else str(path)
    return f"plugin {place}: {type(cause).__name__}: {cause}"
