"""Options of encoders, objectives and labels: typed, frozen, checked before any candle is read.

A part (an encoder, say) names its options in a class of its own, with a type, a range and a default
for each; recipes give plain values. What a value means stands in the part's `Options`, and nowhere
else. Torch is not imported here, so that a typing error in a recipe costs no second.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.registry import Registry

# Of every whole number: far above any that means something, far below what overflows.
LARGEST = 10**9
Count = Annotated[int, Field(ge=1, le=LARGEST)]


class PartOptions(BaseModel):
    """Base of a part's options; as it is, it has none.

    Examples
    --------
    >>> from cppncripto_strategy.models.options import Count, PartOptions
    >>> class Mine(PartOptions):
    ...     channels: Count = 24
    >>> Mine.read({"channels": 8}, "encoder 'mine'").channels
    8
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, values: Mapping[str, Any], owner: str) -> Self:
        """Options from plain values, as a recipe or a bundle holds them.

        Parameters
        ----------
        owner : whose options these are, for the error, such as "encoder 'tcn'".

        Raises
        ------
        RecipeError
            When a name is unknown (with the nearest known one), or a value has a wrong type or lies
            outside its range.
        """
        known = sorted(cls.model_fields)
        for name in values:
            if name not in known:
                close = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                has = f"known: {', '.join(known)}" if known else "it has none"
                raise RecipeError(f"unknown option {name!r} of {owner}{hint}; {has}")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as cause:
            problems = "; ".join(_explain(dict(error)) for error in cause.errors())
            raise RecipeError(f"{owner}: {problems}") from cause

    def to_json(self) -> dict[str, Any]:
        """Plain values of every option, for a bundle."""
        return self.model_dump(mode="json")

    def requested(self) -> dict[str, Any]:
        """Plain values of the options that were set, without defaults."""
        return self.model_dump(mode="json", exclude_unset=True)

    def absolute(self, base: Path) -> Self:
        """The same options, relative paths taken from the folder `base`."""
        paths = {
            name: (base / value.expanduser()).resolve()
            for name in type(self).model_fields
            if isinstance(value := getattr(self, name), Path)
        }
        return self.model_copy(update=paths) if paths else self

    def inlined(self) -> Self:
        """The same options with the content of files in place of their names.

        A cache key or a bundle made of them follows what a file held, not what it was called. Parts
        whose options name files override this. Raises RecipeError when a file cannot be used.
        """
        return self

    def unlearned(self) -> Self:
        """The same shape without anything that was learned or chosen on candles."""
        return self


def options_schema(
    registry: Registry[Any], schemas: Mapping[str, str], name: str
) -> type[PartOptions]:
    """The class of a registered part's options.

    Parameters
    ----------
    schemas : name -> "module:class" of the options of this package's own parts, in modules that do
        not import torch. Any other part has them as its attribute `Options`.

    Raises
    ------
    RecipeError
        When the part is unknown, or its `Options` are not options.
    """
    registry.check(name)
    if name in schemas:
        module, attribute = schemas[name].split(":")
        schema = getattr(import_module(module), attribute)
    else:
        schema = getattr(registry.get(name), "Options", PartOptions)
    if not (isinstance(schema, type) and issubclass(schema, PartOptions)):
        raise RecipeError(
            f"{registry.kind} {name!r}: its Options must be a subclass of"
            f" models.options.PartOptions, found {schema!r}"
        )
    return schema


def part_options(
    registry: Registry[Any], schemas: Mapping[str, str], name: str, values: Mapping[str, Any]
) -> PartOptions:
    """Checked options of a registered part, from plain values.

    Raises
    ------
    RecipeError
        When the part is unknown, or as `PartOptions.read` does.
    """
    return options_schema(registry, schemas, name).read(values, f"{registry.kind} {name!r}")


def _explain(error: dict[str, Any]) -> str:
    """One pydantic error: the option and what is wrong with it."""
    path = ".".join(str(part) for part in error["loc"])
    words = str(error["msg"]).removeprefix("Value error, ")
    return f"{path}: {words}" if path else words
