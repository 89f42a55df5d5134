"""Where a process begins: signals first, then the command line and all that it imports."""

from __future__ import annotations

import signal

from cppncripto_strategy.stopping import stops_cleanly


def main() -> None:
    """Entry point of `cppn-bt` and of `python -m cppncripto_strategy`."""
    try:
        with stops_cleanly():
            from cppncripto_strategy.cli import main as command_line

            command_line()
    finally:
        # All is done: a signal may end what is left of Python, without a traceback.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
