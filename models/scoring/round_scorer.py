"""Scores of a round: every symbol whose candle is there, those of one bundle in one product.

`ScoreStream` is one symbol's: MicroNet behind a `MacroStream`. Those that share a `RoundScorer` are
scored together, once the candles of all of them are taken. A symbol with a gap is scored by itself
that round; at a rollover, and with other bundles, symbols are together with their like.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cppncripto_strategy.models.inputs.scaling import scale_columns
from cppncripto_strategy.models.micronet import MicroNet
from cppncripto_strategy.models.scoring.batch import MIN_PRESENT_SHARE
from cppncripto_strategy.models.scoring.feature_rounds import FeatureRounds
from cppncripto_strategy.models.scoring.macro_stream import MacroState, MacroStream
from cppncripto_strategy.models.scoring.micro_stream import MicroStream
from cppncripto_strategy.models.temperature import tempered

Scores = tuple[float, float, float, float]
NO_SCORES: Scores = (np.nan, np.nan, np.nan, np.nan)


class ScoreStream:
    """MicroNet behind a MacroStream: call `update` once after each `MacroStream.push`.

    Parameters
    ----------
    macro : the symbol's MacroStream.
    scorer : shared by symbols whose candles are all pushed before the first of them is updated;
        None: the symbol is scored by itself.
    """

    def __init__(self, macro: MacroStream, scorer: RoundScorer | None = None) -> None:
        self.macro = macro
        self._scorer = scorer or RoundScorer()
        self._slot = self._scorer.add(self)
        self._window = max(b.info.micro.short_window for b in macro.timeline.bundles)
        self._scored_ms = -1
        self._scores = NO_SCORES

    @property
    def due(self) -> bool:
        """Whether a candle was pushed since the last scores."""
        return self.macro.next_open_ms != self._scored_ms

    @property
    def seconds(self) -> float:
        """Seconds that the last scores took, a symbol's share of its round."""
        return self._scorer.seconds

    def update(self) -> Scores:
        """(score, p_buy, p_sell, score_zero) of the last candle; NaN where undefined."""
        if self.due:
            self._scorer.score()
        return self._scores

    def keep(self, scores: Scores) -> None:
        """The last candle's scores, as they stand where too much of the window is missing."""
        whole = self.macro.clean >= self._window
        known = whole or self.macro.present_share(self._window) >= MIN_PRESENT_SHARE
        self._scores = scores if known else NO_SCORES
        self._scored_ms = self.macro.next_open_ms

    def skip(self) -> None:
        """No scores at the last candle."""
        self._scores, self._scored_ms = NO_SCORES, self.macro.next_open_ms

    def snapshot(self) -> dict[str, Any]:
        """The active network's rings, copied; {} while nothing is scored."""
        state = self.macro.state
        return {} if state is None else self._net(state).snapshot(self._slot)

    def restore(self, kept: dict[str, Any]) -> None:
        """Continue where another stream was, once the MacroStream was restored."""
        self._scored_ms, state = self.macro.next_open_ms, self.macro.state
        if state is not None:
            self._net(state).restore(self._slot, kept, state.embedding)

    def _net(self, state: MacroState) -> MicroStream:
        return self._scorer.net(self.macro.timeline.bundles[state.bundle].micro)


class RoundScorer:
    """Scores the symbols of one run together; lives as long as it.

    Attributes
    ----------
    seconds : the last round's, divided by its symbols.
    """

    def __init__(self) -> None:
        self.members: list[ScoreStream] = []
        self._nets: list[MicroStream] = []
        self._features: list[FeatureRounds] = []
        self.seconds = 0.0

    def add(self, member: ScoreStream) -> int:
        """Take a symbol in, before anything is scored; its slot."""
        assert not self._nets, "a symbol joins before the first round is scored"
        self.members.append(member)
        return len(self.members) - 1

    def net(self, micro: MicroNet) -> MicroStream:
        """The stream of a network; those that no symbol is asked under any more are let go of."""
        for stream in self._nets:
            if stream.net is micro:
                return stream
        states = [(member.macro, member.macro.state) for member in self.members]
        asked = [m.timeline.bundles[s.bundle].micro for m, s in states if s is not None]
        self._nets = [stream for stream in self._nets if any(stream.net is a for a in asked)]
        self._nets.append(MicroStream(micro, len(self.members)))
        return self._nets[-1]

    def score(self) -> None:
        """Score every symbol that is due."""
        began, due = time.perf_counter(), 0
        groups: dict[tuple[int, int, bool, int], list[int]] = {}
        for slot, member in enumerate(self.members):
            if not member.due:
                continue
            due += 1
            macro, state = member.macro, member.macro.state
            if state is None:
                member.skip()
                continue
            alone = 0 if macro.rolled or macro.fresh_rows == 1 else slot + 1
            bundle = id(macro.timeline.bundles[state.bundle])
            key = (bundle, macro.next_open_ms, macro.rolled, alone)
            groups.setdefault(key, []).append(slot)
        for slots in groups.values():
            self._score([self.members[slot] for slot in slots], np.array(slots))
        self.seconds = (time.perf_counter() - began) / max(due, 1)

    def _score(self, group: Sequence[ScoreStream], slots: NDArray[np.int64]) -> None:
        """Symbols of one bundle, at one close, that all go on, or all roll over."""
        macros = [member.macro for member in group]
        first = macros[0]
        states = [macro.active for macro in macros]
        bundle = first.timeline.bundles[states[0].bundle]
        net = self.net(bundle.micro)
        number = first.next_open_ms // first.settings.interval_ms - 1
        count = 1
        if first.rolled:
            for slot, state in zip(slots, states, strict=True):
                net.set_context(int(slot), state.embedding)
            seen = net.net.receptive_field - 1
            rows = np.stack([macro.scaled(seen, 1) for macro in macros])
            net.rewarm(slots, rows, number - rows.shape[1])
        elif first.fresh_rows == 1:
            self._rounds(first).fill(macros)
        else:
            count = first.fresh_rows
        rows = _scaled(macros, states, count)  # (S, count, F)
        for back in range(count):
            z = net.advance(rows[:, back], number - count + 1 + back, slots)
        scores = net.scores(z, slots)
        p_buy, p_sell = tempered(scores[:, 1], scores[:, 2], bundle.temperature)
        found = np.stack([scores[:, 0], p_buy, p_sell, scores[:, 3]], axis=1).tolist()
        for member, row in zip(group, found, strict=True):
            member.keep((row[0], row[1], row[2], row[3]))

    def _rounds(self, macro: MacroStream) -> FeatureRounds:
        """The rings of symbols that read the same features."""
        for rounds in self._features:
            if rounds.table == macro.table:
                return rounds
        self._features.append(FeatureRounds(macro))
        return self._features[-1]


def _scaled(
    macros: Sequence[MacroStream], states: Sequence[MacroState], count: int
) -> NDArray[np.float32]:
    """Every symbol's last `count` rows under its own scaler, (S, count, F)."""
    rows = np.stack([macro.features(count) for macro in macros])
    center = np.stack([state.center for state in states])[:, None]
    scale = np.stack([state.scale for state in states])[:, None]
    return scale_columns(rows, macros[0].scaled_columns, center, scale)
