"""A program of the user's as a target: each message as JSON on its standard input, no shell.

It gets the environment without the variables that hold addresses, must read what it needs and end
with status 0 in time; else the message is sent again later, as to any target. What it prints is not
kept: it could be anything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from cppncripto_strategy.desk.alerts.outbox import words_of


class HookSender:
    """Sends by running a program.

    Parameters
    ----------
    command : the program and its arguments, as they are.
    timeout_s : seconds until it, and all that it started, is killed.
    secrets : variables that it does not get.
    """

    def __init__(self, command: Sequence[str], timeout_s: float, secrets: Sequence[str]) -> None:
        self._command, self._timeout_s, self._secrets = list(command), timeout_s, set(secrets)

    def send(self, message: dict[str, Any]) -> str:
        """Run it; the reason why the message was not taken, empty when it was."""
        content = json.dumps({**message, "text": words_of(message)}).encode() + b"\n"
        environment = {k: v for k, v in os.environ.items() if k not in self._secrets}
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as cause:
            return f"{self._command[0]} cannot be run: {getattr(cause, 'strerror', None) or cause}"
        try:
            process.communicate(content, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"{self._command[0]} did not end within {self._timeout_s:g} s"
        status = process.returncode
        return f"{self._command[0]} ended with status {status}" if status else ""
