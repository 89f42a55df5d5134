"""The days of a span as a genome is judged on them: HAR-X's terms, and what each day then was.

The targets of a day are its realised variance, volume and range against the month before; its
profile, twelve two-hour means of volume and of volatility; and the profiles of the three days
before its midnight and the three from it on (`learning.reading`), by which MicroNet reads an
embedding: what lasts shows in them with less noise than in one day. A target is known when its last
day is over. Left out: how an embedding is judged on them (`judging.gains`).
"""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.errors import TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.forecasting.days import day_table
from cppncripto_strategy.models.forecasting.terms import har_x_terms
from cppncripto_strategy.models.inputs.outcomes import OUTCOMES, day_outcomes
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.judging.gains import Judged
from cppncripto_strategy.models.learning.reading import DAYS as LASTING_DAYS
from cppncripto_strategy.models.learning.reading import day_profiles

# What a squared error of each outcome counts, as in objective "forecast".
_OUTCOME_WEIGHTS = {"log_variance": 1.0, "log_volume": 0.5, "log_range": 0.5}
# What those of all blocks of the day's profile count together, and of the days' around it: as much
# as the outcomes.
_PROFILE_WEIGHT, _LASTING_WEIGHT = 2.0, 2.0


def judged_days(sessions: SessionSet, until_ms: int) -> tuple[Judged, IntArray]:
    """The sessions whose terms and targets are known by `until_ms`, and their places in the set.

    Candles that close later are not looked at: an outcome that needs one is not known.

    Raises
    ------
    TrainingError
        When there is no such session.
    """
    anchors, outcomes = [], []
    number, start = sessions.members[:, 0], sessions.start_ms()
    order = []
    for place, table in enumerate(sessions.tables):
        mine = np.flatnonzero(number == place)
        days = day_table(table.grid)
        market = day_table(table.grid.of_market()) if table.settings.market else None
        anchors.append(har_x_terms(days, start[mine], market))
        outcomes.append(day_outcomes(table.grid, start[mine]))
        order.append(mine)
    rows = np.argsort(np.concatenate(order), kind="stable")
    anchor = np.concatenate(anchors)[rows]
    profiles = day_profiles(sessions, until_ms)
    day = day_profiles(sessions, until_ms, 1).coming
    blocks = [np.concatenate(outcomes)[rows], day, profiles.recent, profiles.coming]
    targets = np.hstack(blocks)
    known = np.isfinite(np.hstack([anchor, targets])).all(axis=1) & (start + DAY_MS <= until_ms)
    kept = np.flatnonzero(known)
    if not len(kept):
        raise TrainingError(
            "no session of the span has both HAR-X's terms (half a month of days before it) and a "
            "complete next day: give the evolution more days"
        )
    lasting = profiles.recent.shape[1] + profiles.coming.shape[1]
    weights = [
        *(_OUTCOME_WEIGHTS[name] for name in OUTCOMES),
        *[_PROFILE_WEIGHT / day.shape[1]] * day.shape[1],
        *[_LASTING_WEIGHT / lasting] * lasting,
    ]
    columns = anchor[kept], targets[kept], np.array(weights), number[kept], start[kept]
    return Judged(*columns, days=LASTING_DAYS), kept
