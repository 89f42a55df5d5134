"""Import every module of the installed package; the arguments are the sources it must consist of.

Run it with `python -I` by an interpreter that has the package from a wheel or an sdist.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import files
from pathlib import Path

PACKAGE = "cppncripto_strategy"


def main() -> None:
    """Compare, then import. Raises SystemExit with what is missing or too much."""
    sources = {Path(name) for name in sys.argv[1:]}
    expected = {path if path.parts[0] == PACKAGE else PACKAGE / path for path in sources}
    listed = files("cppncripto-strategy") or []
    installed = {Path(file) for file in listed if file.suffix == ".py"}
    if expected != installed:
        missing, extra = sorted(expected - installed), sorted(installed - expected)
        raise SystemExit(f"missing: {[*map(str, missing)]}; not in the tree: {[*map(str, extra)]}")
    for path in sorted(installed):
        parts = path.with_suffix("").parts
        module = import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        if not Path(module.__file__ or "").is_relative_to(sys.prefix):
            raise SystemExit(f"{module.__name__} is imported from {module.__file__}, not installed")
    print(f"{len(installed)} modules imported from {sys.prefix}")


if __name__ == "__main__":
    main()
