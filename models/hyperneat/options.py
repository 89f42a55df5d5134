"""Options of encoder "cppn": type, range and default of each. Torch is not imported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cppncripto_strategy.models.hyperneat.champion import read_champion
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.substrate import FIVE_MINUTES_MS, STRIDE, Substrate
from cppncripto_strategy.models.options import Count, PartOptions


class CPPNOptions(PartOptions):
    """Options of encoder "cppn".

    Parameters
    ----------
    genome : path of a champion.json that `cppn-bt evolve` wrote, or a genome's JSON document;
        without one a random CPPN is drawn from torch's random state.
    bank : more genomes' JSON documents, which share out the vector with the first; a champion.json
        of several genomes brings its own.
    substrate : a substrate's JSON document; without one it is the champion's, or else made of the
        settings that follow.
    channels : channels of every layer but the last.
    taps : taps of every kernel.
    dilations : rows between taps, one for each layer.
    stride : candles averaged into one row.
    interval_ms : length of a candle, milliseconds: taps are painted at physical times.
    coordinates : what a genome reads beside the five coordinates: how far round a "day" and a
        "week" a tap's age is, and round a quadrupling of it ("period"); a number of each channel
        that follows no order ("scatter"), so that neighbours need not be painted alike.
    gated : whether every filter has a gate, whose weights are a third output of the genome.
    half_life : rows after which one counts half as much in the first half of the pooled vector; the
        second half is the plain mean. Unset, all of it is.
    decay : strength with which fine-tuning is drawn back to the painted weights: this times their
        squared distance is added to the loss.
    evolved_until_ms : close of the last candle that chose the genome, so that a bundle can refuse a
        genome that has seen its future. None: nothing chose it.
    """

    genome: dict[str, Any] | Path | None = None
    bank: tuple[dict[str, Any], ...] = ()
    substrate: dict[str, Any] | None = None
    channels: Count = 24
    taps: Count = 3
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4)
    stride: Count = STRIDE
    interval_ms: Count = FIVE_MINUTES_MS
    coordinates: tuple[Literal["period", "day", "week", "scatter"], ...] = ()
    gated: bool = False
    half_life: Annotated[float, Field(gt=0)] | None = None
    decay: Annotated[float, Field(ge=0)] = 0.0
    evolved_until_ms: Annotated[int, Field(ge=0, lt=2**43)] | None = None  # to the year 2248

    @model_validator(mode="after")
    def _check(self) -> Self:
        for document in (self.genome, *self.bank):
            if isinstance(document, dict):
                Genome.from_json(document)
        if self.substrate is not None:
            Substrate.from_json(self.substrate)
        return self

    def inlined(self) -> Self:
        """The same options with the champion that `genome` names in its place.

        Raises
        ------
        RecipeError
            When there is no such file, or it holds no genome.
        """
        if not isinstance(self.genome, Path):
            return self
        champion = read_champion(self.genome)
        values = self.requested() | {"genome": champion["genome"]}
        values["bank"] = tuple(champion.get("bank", ()))
        if "substrate" in champion:
            values.setdefault("substrate", champion["substrate"])
        if "until_ms" in champion:
            values["evolved_until_ms"] = champion["until_ms"]  # not a thing to argue with
        return type(self)(**values)

    def unlearned(self) -> Self:
        """Without the genomes: they would paint the very weights that randomness is to replace."""
        return self.model_copy(update={"genome": None, "bank": (), "evolved_until_ms": None})

    def to_json(self) -> dict[str, Any]:
        """Plain values; what came later only where it is used, so that bundles keep their names."""
        plain, later = super().to_json(), ("bank", "coordinates", "gated", "half_life", "decay")
        return {name: value for name, value in plain.items() if name not in later or value}

    def substrate_for(self, n_features: int, width: int) -> Substrate:
        """The substrate that an encoder of these options paints."""
        if self.substrate is not None:
            return Substrate.from_json(self.substrate).with_width(width)
        shape = self.channels, self.taps, self.dilations, self.stride, self.interval_ms
        plain = Substrate.temporal(n_features, width, *shape)
        return replace(
            plain, coordinates=self.coordinates, gated=self.gated, half_life=self.half_life
        )
