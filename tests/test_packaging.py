"""Packaging: what is in the tree is what is installed, and what is imported is what is declared."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "cppncripto_strategy"
# Folders at the top of the repository that are installed as sub-packages, through a link each.
LINKED = ("feeds", "indicators", "models", "runs")
# Of the dependencies, what another one brings and does not bound: we do, at both ends.
BOUNDED = {"websockets"}
# Oracles that a test does without: they build only where a C++ compiler and Boost are.
ORACLES = {"confseq"}
# What benchmarks are compared with where it is installed.
PEERS = {"backtesting", "polars"}
# Of the test extra, what is run and not imported.
TOOLS = {"build", "ipykernel", "mypy", "pandas-stubs", "pytest-xdist", "ruff", "setuptools"}


@pytest.fixture(scope="module")
def tree() -> list[Path]:
    """Files of the package folders, below the root: those git knows or would add."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: strays cannot be told from sources here")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        [*command, "--", PACKAGE, *LINKED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    links = {f"{PACKAGE}/{name}" for name in LINKED}
    names = {name for name in listed.stdout.split("\0") if name and name not in links}
    return sorted(Path(name) for name in names if (ROOT / name).is_file())


@pytest.fixture(scope="module")
def setup_cfg() -> ConfigParser:
    """setup.cfg as setuptools reads it."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def package_of(folder: Path) -> str:
    """feeds/live -> cppncripto_strategy.feeds.live."""
    prefix = () if folder.parts[0] == PACKAGE else (PACKAGE,)
    return ".".join((*prefix, *folder.parts))


def mapping(setup_cfg: ConfigParser) -> dict[str, str]:
    """Package -> folder, as setup.cfg has it."""
    lines = setup_cfg["options"]["package_dir"].strip().splitlines()
    pairs = (line.partition("=") for line in lines)
    return {package.strip(): folder.strip() for package, _, folder in pairs}


def test_setup_cfg_lists_every_folder_with_sources(tree, setup_cfg):
    """A new sub-package that works in development and is missing from the wheel."""
    folders = {path.parent for path in tree if path.suffix == ".py"}
    expected = {package_of(folder): folder.as_posix() for folder in folders}
    assert expected == mapping(setup_cfg)
    assert sorted(expected) == setup_cfg["options"]["packages"].split()


def test_every_folder_with_sources_is_a_package(tree):
    """A folder without __init__.py is a namespace: half the tools pass over it."""
    folders = {path.parent for path in tree if path.suffix == ".py"}
    assert {folder / "__init__.py" for folder in folders} <= set(tree)


def test_links_are_as_committed():
    """A link replaced by a copy of its folder, which drifts away from it in silence."""
    for name in LINKED:
        link = ROOT / PACKAGE / name
        # Without symbolic links, git leaves a file that holds the target's name.
        target = link.readlink().as_posix() if link.is_symlink() else link.read_text("utf-8")
        assert target == f"../{name}"


def test_package_data_covers_every_other_file(tree, setup_cfg):
    """A template or a recipe that is found in the checkout, and by no user."""
    patterns = setup_cfg["options.package_data"]
    folders = {Path(folder): package for package, folder in mapping(setup_cfg).items()}
    for path in (path for path in tree if path.suffix != ".py"):
        owner = next(folder for folder in path.parents if folder in folders)
        inside = path.relative_to(owner).as_posix()
        known = patterns.get(folders[owner], "").split()
        assert any(fnmatch(inside, pattern) for pattern in known), path


def test_package_data_names_files_that_exist(tree, setup_cfg):
    """A pattern left behind by a folder that moved, whose files are now in no wheel."""
    folders = mapping(setup_cfg)
    for package, patterns in setup_cfg["options.package_data"].items():
        for pattern in patterns.split():
            assert any(path.match(f"{folders[package]}/{pattern}") for path in tree), pattern


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory) -> Path:
    """Folder with the sdist of a copy of the tree, and the wheel built from that sdist."""
    pytest.importorskip("build")
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    top = (ROOT / name for name in ("pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md"))
    for path in (*top, ROOT / "LICENSE", *(ROOT / name for name in tree)):
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    (source / "tests").mkdir()
    (source / "tests" / "test_stray.py").touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=output)
    assert ran.returncode == 0, ran.stderr
    return output


def test_wheel_holds_the_tree_and_nothing_else(tree, built):
    """Half the package missing, or tests and strays landing bare in site-packages."""
    [wheel] = built.glob("*.whl")
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    modules = {name for name in names if not name.parts[0].endswith(".dist-info")}
    expected = {Path(*package_of(path.parent).split(".")) / path.name for path in tree}
    assert expected == modules


def test_sdist_holds_what_the_wheel_is_built_from(tree, built):
    """A source distribution that only builds beside the checkout it came from."""
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {Path(*Path(m.name).parts[1:]) for m in members if m.isfile()}
    generated = {name for name in names if name.parts[0].endswith(".egg-info")}
    top = ("LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg")
    assert set(tree) | {Path(name) for name in top} == names - generated


def project() -> dict:
    """The project table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    """Distributions that requirements ask for, without their versions."""
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def third_party(*folders: str) -> set[str]:
    """Distributions whose modules are imported anywhere in the sources of these folders."""
    known = packages_distributions()
    roots = {
        name.partition(".")[0]
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in imports(ast.parse(path.read_text("utf-8")))
    }
    beside = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}  # they import each other
    outside = roots - set(sys.stdlib_module_names) - {PACKAGE} - beside
    return {normal(known.get(root, [root])[0]) for root in outside}


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules that a source imports, by statement or by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(level=0, module=str(name)):
                yield name
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="importorskip"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def test_dependencies_are_what_the_package_imports():
    """A package that another one happens to bring, until it does not; or one nobody uses."""
    required = declared(project()["dependencies"])
    extras = project()["optional-dependencies"]
    offered = declared([r for name, needs in extras.items() if name != "test" for r in needs])
    imported = third_party(PACKAGE, *LINKED)
    assert required - BOUNDED == imported - offered
    for requirement in project()["dependencies"]:
        if declared([requirement]) & BOUNDED:
            assert re.search(r">=\d+", requirement), requirement
            assert re.search(r"<\d+", requirement), requirement


def test_test_extra_is_what_the_tests_import():
    """A fresh `pip install -e .[test] && pytest` that stops at a missing module."""
    required = declared(project()["dependencies"])
    extra = declared(project()["optional-dependencies"]["test"])
    imported = third_party("tests", "benchmarks", "notebooks")
    assert extra - TOOLS == imported - required - TOOLS - ORACLES - PEERS
    assert extra >= TOOLS


def test_examples_need_nothing_but_the_package():
    """An example that a user copies and that asks for a package nobody told them of."""
    text = "".join(path.read_text("utf-8") for path in (ROOT / "examples").glob("*.py"))
    told = {normal(name) for name in re.findall(r"pip install ([\w-]+)", text)}
    assert third_party("examples") <= declared(project()["dependencies"]) | told
