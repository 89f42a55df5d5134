"""What was refused, kept for inspection: damaged files and candles that break a rule.

Everything lives in `.quarantine/` of the store, out of sight of Parquet readers. Nothing is ever
read back into the store from there.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.candles import Rejected
from cppncripto_strategy.feeds.history.store import write_atomically
from cppncripto_strategy.foreign import reading

FOLDER = ".quarantine"


class Quarantine:
    """The quarantine of one store; a file or candle kept twice is kept once."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def keep_file(self, name: str, content: bytes, reason: str) -> Path:
        """Keep damaged bytes, with the reason beside them; returns where."""
        # Another suffix, so that no reader's `**/*.parquet` finds a damaged month here.
        target = self.folder / f"{hashlib.sha256(content).hexdigest()[:12]}-{name}.damaged"
        write_atomically(target, content)
        write_atomically(target.with_name(target.name + ".reason"), reason.encode())
        return target

    def take_file(self, file: Path, reason: str) -> Path:
        """Move a damaged month out of the store.

        Raises
        ------
        StoreError
            When it cannot be read or removed.
        """
        with reading(file, "month to set aside", StoreError):
            kept = self.keep_file(f"{'-'.join(file.parts[-3:])}", file.read_bytes(), reason)
            os.unlink(file)
        return kept

    def keep_candles(
        self, symbol: str, interval: str, source: str, rejected: list[Rejected]
    ) -> None:
        """Keep refused candles, one JSON line each."""
        file = self._candle_file(symbol, interval)
        lines = dict.fromkeys(self._lines(file))
        for candle in rejected:
            line = json.dumps(
                {"open_time": candle.open_time, "rule": candle.rule, "values": candle.values}
                | {"source": source}
            )
            lines[line] = None
        if rejected:
            write_atomically(file, ("\n".join(lines) + "\n").encode())

    def candles(self, symbol: str, interval: str) -> list[dict[str, object]]:
        """The refused candles of a series, oldest record first.

        Raises
        ------
        StoreError
            When somebody changed the file, so that a line of it is no record.
        """
        file = self._candle_file(symbol, interval)
        with reading(file, "record of refused candles", StoreError, "Move it away"):
            return [json.loads(line) for line in self._lines(file)]

    @staticmethod
    def _lines(file: Path) -> list[str]:
        return file.read_text("utf-8", "backslashreplace").splitlines() if file.exists() else []

    def files(self) -> list[Path]:
        """The damaged files kept."""
        reasons = self.folder.glob("*.reason")
        return sorted(reason.with_name(reason.name.removesuffix(".reason")) for reason in reasons)

    def _candle_file(self, symbol: str, interval: str) -> Path:
        return self.folder / f"{symbol}-{interval}.jsonl"
