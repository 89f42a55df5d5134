"""What was refused, kept for inspection: damaged files and candles that break a rule.

Everything lives in `.quarantine/` of the store, out of sight of Parquet readers. Nothing is ever
read back into the store from there.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cppncripto_strategy.feeds.candles import Rejected
from cppncripto_strategy.feeds.history.store import write_atomically

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
        """Move a damaged month out of the store."""
        kept = self.keep_file(f"{'-'.join(file.parts[-3:])}", file.read_bytes(), reason)
        os.unlink(file)
        return kept

    def keep_candles(
        self, symbol: str, interval: str, source: str, rejected: list[Rejected]
    ) -> None:
        """Keep refused candles, one JSON line each."""
        file = self._candle_file(symbol, interval)
        lines = dict.fromkeys(file.read_text().splitlines() if file.exists() else [])
        for candle in rejected:
            line = json.dumps(
                {"open_time": candle.open_time, "rule": candle.rule, "values": candle.values}
                | {"source": source}
            )
            lines[line] = None
        if rejected:
            write_atomically(file, ("\n".join(lines) + "\n").encode())

    def candles(self, symbol: str, interval: str) -> list[dict[str, object]]:
        """The refused candles of a series, oldest record first."""
        file = self._candle_file(symbol, interval)
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def files(self) -> list[Path]:
        """The damaged files kept."""
        reasons = self.folder.glob("*.reason")
        return sorted(reason.with_name(reason.name.removesuffix(".reason")) for reason in reasons)

    def _candle_file(self, symbol: str, interval: str) -> Path:
        return self.folder / f"{symbol}-{interval}.jsonl"
