"""docs/first-steps.md: the shell completes what it says, and doctor looks at what it lists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cppncripto_strategy.installation import local_findings

TEXT = (Path(__file__).parents[2] / "docs" / "first-steps.md").read_text("utf-8")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_given_for_each_shell_of_the_page(shell: str) -> None:
    """A variable's name that no shell hears, because the program is called otherwise."""
    assert f"_CPPN_BT_COMPLETE={shell}_source cppn-bt" in TEXT
    code = "from cppncripto_strategy.cli import cli; cli.main(prog_name='cppn-bt')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"_CPPN_BT_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "_CPPN_BT_COMPLETE" in done.stdout


def test_commands_are_completed() -> None:
    """A lazy list of commands that completion does not see."""
    words = {"_CPPN_BT_COMPLETE": "bash_complete", "COMP_WORDS": "cppn-bt cr", "COMP_CWORD": "1"}
    code = "from cppncripto_strategy.cli import cli; cli.main(prog_name='cppn-bt')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | words,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["plain,crosscheck"]


def test_every_local_check_is_in_the_table() -> None:
    """A fault that the page does not know."""
    table = TEXT.partition("## What does doctor look at?")[2].partition("## What if")[0]
    named = {
        name.strip() for row in re.findall(r"^\| (.*?) \|", table, re.M) for name in row.split(",")
    }
    assert {finding.check for finding in local_findings(Path())} <= named
