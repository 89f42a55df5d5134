"""Where a process begins: signals first, then the command line and all that it imports."""

from __future__ import annotations

import os
import signal

from cppncripto_strategy.stopping import stops_cleanly


def main() -> None:
    """Entry point of `cppn-bt` and of `python -m cppncripto_strategy`."""
    status = 1
    try:
        with stops_cleanly():
            from cppncripto_strategy.cli import main as command_line

            command_line()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
        raise
    finally:
        # All is done and said: a signal may end what is left of Python, with the same status.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, lambda *_: os._exit(status))


if __name__ == "__main__":
    main()
