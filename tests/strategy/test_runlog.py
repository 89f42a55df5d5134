"""A run's log on a disk that is full, and what it says of how the run ended."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from cppncripto_strategy.runlog import log_file

log = logging.getLogger("cppncripto_strategy.test")


def test_full_disk_ends_the_log_with_one_warning_and_no_traceback(caplog, capsys):
    """logging prints a traceback for every line that it cannot write."""
    with log_file(Path("/dev/full")):
        for number in range(3):
            log.info("line %d", number)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["/dev/full cannot be written, the log ends here: No space left on device"]
    assert capsys.readouterr().err == ""


def test_run_that_a_signal_stopped_says_so(tmp_path):
    """A log that ends in the midst of a training, and nobody knows whether it was killed."""
    path = tmp_path / "log.jsonl"
    with pytest.raises(KeyboardInterrupt), log_file(path):
        raise KeyboardInterrupt
    assert json.loads(path.read_text().splitlines()[-1])["message"] == "stopped by a signal"
