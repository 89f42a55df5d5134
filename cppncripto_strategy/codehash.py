"""Hash of the code that a module's results follow from: its own source and all that it imports.

A cache keyed by this hash is renewed when any of that code changes, and by nothing else. The
imports are read from the sources, nothing is executed, so an import inside a function counts like
one at the top. Other packages are left out: put the versions that matter beside the hash.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path

# How a registry names what it imports by need: "package.module:attribute", or the module alone.
_REFERENCE = re.compile(r"\w+(?:\.\w+)+(?::\w+)?")


def closure(*modules: str) -> list[Path]:
    """Sources of these modules and of every module of their packages that they import.

    Importing a module imports the packages around it, so their `__init__` is included. Imports
    that only a type checker follows (`if TYPE_CHECKING:`) are not. A string that names a module,
    as "package.module" or "package.module:attribute", counts as an import of it.

    Parameters
    ----------
    modules : full names, "cppncripto_strategy.experiments.runner".

    Returns
    -------
    list of Path, in the order of the modules' names.

    Raises
    ------
    ModuleNotFoundError
        When one of the named modules does not exist.
    """
    return list(_closure(modules).values())


@functools.cache
def closure_digest(*modules: str) -> str:
    """SHA-256 over the names and sources of `closure(*modules)`, as hexadecimal digits.

    The names are those of the modules, so it does not matter where the package is installed. Read
    once per process: a source that changes while it runs is not noticed, as Python does not.

    Raises
    ------
    ModuleNotFoundError
        When one of the named modules does not exist.
    """
    digest = hashlib.sha256()
    for name, path in _closure(modules).items():
        source = path.read_bytes()
        digest.update(f"{name} {len(source)}\n".encode())
        digest.update(source)
    return digest.hexdigest()


def _closure(modules: Sequence[str]) -> dict[str, Path]:
    """Module -> source, for the modules of a closure, sorted by name."""
    for module in modules:
        if _spec(module) is None:
            raise ModuleNotFoundError(f"no module named {module!r}, so its code has no hash")
    packages = {module.partition(".")[0] for module in modules}
    sources: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in seen or module.partition(".")[0] not in packages:
            continue
        seen.add(module)
        spec = _spec(module)
        if spec is None:
            continue  # `from module import name` may name anything; only modules have a source
        waiting.append(module.rpartition(".")[0])
        if spec.origin is not None and spec.has_location:
            sources[module] = Path(spec.origin)
            waiting += _imports(sources[module], spec.parent or "")
    return dict(sorted(sources.items()))


def _spec(module: str) -> ModuleSpec | None:
    """Where a module would be imported from. importlib's own `find_spec` runs the parents."""
    if not module:
        return None
    parent = module.rpartition(".")[0]
    path = None
    if parent:
        above = _spec(parent)
        path = above.submodule_search_locations if above is not None else None
        if path is None:
            return None
    specs = (finder.find_spec(module, path) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _imports(path: Path, package: str) -> Iterator[str]:
    """Names that a source inside `package` may import, wherever in it; not all are modules."""
    for node in _executed(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and _REFERENCE.fullmatch(str(node.value)):
            yield str(node.value).partition(":")[0]


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree but those that only a type checker reads."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _executed(child)
