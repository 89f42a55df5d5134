"""The parts of a bundle that come from plugin files: said by name, and asked for when it is read.

A bundle carries weights and names, never code. Where its encoder or a feature comes from a user's
plugin file, that file has to be loaded, and be the same, before the bundle can score. Objective and
label are recorded too, but only training needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.models.encoders import ENCODERS
from cppncripto_strategy.models.inputs.features import FEATURES
from cppncripto_strategy.models.labels import LABELS
from cppncripto_strategy.models.pretraining import OBJECTIVES, objective_names
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.registry import Registry

# What scoring needs, by the registry's word for it.
_SCORING: dict[str, Registry[Any]] = {registry.kind: registry for registry in (ENCODERS, FEATURES)}


@dataclass(frozen=True, slots=True)
class PluginPart:
    """A part that a plugin file registered.

    Parameters
    ----------
    kind : "encoder", "objective", "label" or "feature"; name : as registered.
    file : name of the plugin file; sha256 : of its content, in hex.
    """

    kind: str
    name: str
    file: str
    sha256: str


def plugin_parts(settings: LearnSettings) -> tuple[PluginPart, ...]:
    """The parts that learning with these settings takes from plugin files.

    Raises
    ------
    RecipeError
        When a part is unknown.
    """
    return tuple(
        PluginPart(registry.kind, name, Path(origin.name).name, origin.digest)
        for registry, name in _chosen(settings)
        if (origin := registry.origin(name)).kind == "plugin"
    )


def require_parts(parts: Iterable[PluginPart]) -> None:
    """Refuse to read a bundle whose plugins are not here, or are not the same.

    Raises
    ------
    BundleError
        Naming part, file and digest.
    """
    for part in parts:
        if part.kind in _SCORING:
            _require(part, _SCORING[part.kind])


def _require(part: PluginPart, registry: Registry[Any]) -> None:
    needs = f"the {part.kind} {part.name!r} of the plugin {part.file} (SHA-256 {part.sha256})"
    if part.name not in registry.names():
        raise BundleError(
            f"the bundle needs {needs}, which is not loaded: name the file in the recipe's"
            " plugins = [...], give `cppn-bt --plugin FILE`, or load it with"
            " cppncripto_strategy.plugins.load_plugins"
        )
    origin = registry.origin(part.name)
    if origin.digest != part.sha256:
        found = f"{origin.name} (SHA-256 {origin.digest})" if origin.digest else origin.name
        raise BundleError(
            f"the bundle needs {needs}, and {found} is loaded: go back to that file, or train again"
        )


def _chosen(settings: LearnSettings) -> Iterator[tuple[Registry[Any], str]]:
    if settings.use_macro:
        yield ENCODERS, settings.encoder
        for name in objective_names(settings.objective, settings.objective_options):
            yield OBJECTIVES, name
    yield LABELS, settings.label.kind
    for name in settings.session.names:
        yield FEATURES, name
