"""Without what only POSIX has, and in folders with spaces, accents and backslashes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli

pytestmark = pytest.mark.slow

# What Windows lacks, modules and calls; blocked before anything of ours is imported.
HIDDEN = ("fcntl", "grp", "pwd", "resource", "termios")
CALLS = ("fdatasync", "nice", "O_NOFOLLOW", "pwrite", "sched_getaffinity", "sysconf")
HIDE = f"""
import os, signal, sys
for name in {HIDDEN!r}:
    sys.modules[name] = None  # import raises ImportError
for name in {CALLS!r}:
    if hasattr(os, name):
        delattr(os, name)
def refused(*_, **__):
    raise OSError(1, "Operation not permitted")
os.link = os.symlink = refused
if hasattr(signal, "pthread_sigmask"):
    del signal.pthread_sigmask
"""
IMPORT_ALL = """
import importlib, pkgutil, cppncripto_strategy
found = pkgutil.walk_packages(cppncripto_strategy.__path__, "cppncripto_strategy.")
names = [module.name for module in found]
assert len(names) > 300, len(names)
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
"""
# A backslash parts folders on Windows, and is part of a name everywhere else.
ODD = Path("con espaços e acentos") if os.name == "nt" else Path("con espaços e acentos\\ção")


def cppn_bt(*arguments: str) -> str:
    """What the command prints, in this process and folder; a failure is an error."""
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def smallest(tiny_toml: str) -> str:
    """The shared small recipe, of one symbol and retrained half as often."""
    text = tiny_toml.replace('["ONE", "TWO"]', '["ONE"]')
    return text.replace("retrain_days = 7", "retrain_days = 14", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, smallest: str) -> Path:
    """The folder, with a recipe in it that was run there once."""
    folder = tmp_path_factory.mktemp("x") / ODD
    folder.mkdir(parents=True)
    (folder / "minha receita.toml").write_text(smallest, "utf-8")
    with contextlib.chdir(folder):
        cppn_bt("run", "minha receita.toml", "--jobs", "1")
    return folder


@pytest.fixture
def odd(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def run_folder(odd: Path) -> Path:
    [page] = odd.glob("minha receita/*/tearsheet.html")
    return page.parent


def test_every_module_is_imported_and_a_recipe_runs_without_what_only_posix_has(
    tmp_path: Path,
    smallest: str,
) -> None:
    """`import resource` at the top of a file: nothing of the package starts on Windows."""
    (tmp_path / "tiny.toml").write_text(smallest, "utf-8")
    arguments = ("run", "tiny.toml", "--jobs", "1", "--json")
    run = "from cppncripto_strategy.cli import cli\ncli.main(prog_name='cppn-bt')"
    done = subprocess.run(
        [sys.executable, "-c", HIDE + IMPORT_ALL + run, *arguments],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["speed"]["peak_memory_mb"] is None
    assert (tmp_path / metrics["folder"] / "report.html").is_file()
    log = (tmp_path / metrics["folder"] / "log.jsonl").read_text("utf-8")
    assert "no file locks" in done.stderr + log


def test_a_run_is_checked_and_crosschecked_in_such_a_folder(odd: Path) -> None:
    """A path that is joined as text, escaped into a page, or read back from a file."""
    done = json.loads(cppn_bt("crosscheck", str(run_folder(odd)), "--json"))
    assert (run_folder(odd) / "vectorbt.html").is_file(), done
    cppn_bt("check", "minha receita.toml", "--only", "peeking outcomes")


def test_candles_are_stored_in_such_a_folder(odd: Path) -> None:
    """A store whose glob takes a folder's name for a pattern."""
    rows = [f"{1_700_006_400_000 + k * 900_000},10,11,9,10,5" for k in range(200)]
    text = "\n".join(["open_time,open,high,low,close,volume", *rows])
    (odd / "meus candles [1].csv").write_text(text, "utf-8")
    store = ("--store", str(odd / "armazém [à vista]"))
    named = ("--symbol", "MINE", "--interval", "15m")
    cppn_bt("data", "import", "meus candles [1].csv", *named, *store)
    assert "MINE" in cppn_bt("data", "list", *store)
    cppn_bt("data", "verify", *store)


def test_a_paper_session_trades_in_such_a_folder(odd: Path) -> None:
    """Journals, checkpoints and reports of a session whose path needs quoting."""
    demo = ("paper", "minha receita.toml", "--demo", "--sessions", "sessões à vista")
    bundles = ("--bundles", str(run_folder(odd)))
    cppn_bt(*demo, *bundles, "--speed", "20000", "--stop-after", "4", "--no-retrain")
    assert list((odd / "sessões à vista").rglob("report.html"))
    [session] = (path for path in (odd / "sessões à vista").iterdir() if path.is_dir())
    cppn_bt("parity", str(session))
