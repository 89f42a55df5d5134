"""The retraining calendar: absolute stamps, whatever the range that is asked for.

Stamps are multiples of the period since Monday 1970-01-05 00:00 UTC, and a chain of warm starts
begins at a stamp where MacroNet is trained afresh, so that another time range retrains on the same
days and finds the same bundles.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cppncripto_strategy.feeds.clock import DAY_MS, FIRST_MONDAY_MS, ms_to_date
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.settings import LearnSettings

log = logging.getLogger(__name__)


def calendar(start_ms: int, end_ms: int, every_days: int) -> list[int]:
    """Retraining stamps for scoring [start_ms, end_ms): the last at or before the start, then on.

    Stamps are multiples of the period since a Monday, whatever the range asked for.
    """
    period = every_days * DAY_MS
    first = (start_ms - FIRST_MONDAY_MS) // period * period + FIRST_MONDAY_MS
    return list(range(first, max(end_ms, first + 1), period))


def lead_in(tables: Sequence[SessionTable], first_ms: int, settings: LearnSettings) -> list[int]:
    """Stamps before `first_ms` whose warm starts lead to it, from where MacroNet is trained.

    None where the candles do not reach back far enough for all of them, or where drift decides: the
    first bundle is then trained afresh, and a range that starts elsewhere would find other bundles.
    """
    if settings.retrain != "calendar":
        return []
    macro_ms = calendar(first_ms, first_ms, settings.macro_retrain_days)[0]
    stamps = calendar(macro_ms, first_ms, settings.retrain_days)
    lead = [stamp for stamp in stamps if macro_ms <= stamp < first_ms]
    needed = min(lead, default=0) - (settings.train_days + settings.validate_days) * DAY_MS
    reaches = all(len(table) > 0 and table.start_ms[0] <= needed for table in tables)
    if lead and not reaches:
        log.info(
            "candles begin too late for the warm starts from %s on: the first bundle, %s, is"
            " trained afresh",
            ms_to_date(lead[0]),
            ms_to_date(first_ms),
        )
    return lead if reaches else []
