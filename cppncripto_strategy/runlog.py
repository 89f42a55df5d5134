"""A run's log: JSON lines in its folder, and the seconds of its phases."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.progress import PhaseProgress

log = logging.getLogger(__name__)

PACKAGE = "cppncripto_strategy"


class PhaseClock:
    """Seconds of each phase, passed on to the callback `progress`. Lives for one run."""

    def __init__(self, progress: PhaseProgress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """Time a phase; yields a (done, total, text) callback for what happens inside."""
        began = time.perf_counter()
        self.progress(name, 0, 1, "")
        log.info("phase %s begins", name)
        yield lambda done, total, text: self.progress(name, done, total, text)
        self.seconds[name] = time.perf_counter() - began
        self.progress(name, 1, 1, "done")
        log.info("phase %s took %.2f s", name, self.seconds[name])

    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


class _JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values = {
            "time": moment,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(values)


class _LogHandler(logging.FileHandler):
    """Ends with a warning when its disk is full; whoever logs is not disturbed."""

    def handleError(self, record: logging.LogRecord) -> None:
        logger, cause = logging.getLogger(PACKAGE), sys.exc_info()[1]
        if self in logger.handlers:
            logger.removeHandler(self)
            reason = getattr(cause, "strerror", None) or cause
            log.warning("%s cannot be written, the log ends here: %s", self.baseFilename, reason)

    def close(self) -> None:
        with suppress(OSError):  # what a full disk did not take is still in the buffer
            super().close()


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Everything this package logs, into a JSON-lines file, while the run lasts.

    Its last line says why the run failed, if it did: of a run that was refused this file is all
    that is left.

    Raises
    ------
    OSError
        When the file cannot be made. When it cannot be written any more, later on, that is a
        warning and no error.
    """
    handler = _LogHandler(path, encoding="utf-8")
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger(PACKAGE)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        name = "" if isinstance(error, CppnError) else f"{type(error).__name__}: "
        _write(handler, f"run failed: {name}{error}")
        raise
    except KeyboardInterrupt:
        logger.info("stopped by a signal")
        raise
    except BaseException as stop:
        _write(handler, f"run stopped: {type(stop).__name__}")
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()


def _write(handler: logging.Handler, text: str) -> None:
    """Into the file alone: to the caller the exception reports it."""
    handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), None))
