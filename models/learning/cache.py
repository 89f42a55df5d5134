"""Finished bundles, kept under a key over everything they follow from.

The key is over settings, seed, code, plugins, candles and the bundle before, so an interrupted run
resumes where it was, and nothing stale is used again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cppncripto_strategy.atomic import write_bytes
from cppncripto_strategy.codehash import closure_digest
from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.feeds.clock import ms_to_date
from cppncripto_strategy.foreign import read_object, reading
from cppncripto_strategy.models.bundle import Bundle, arm_folder
from cppncripto_strategy.models.device import resolve_device
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.learning.data import fingerprint, reach_ms
from cppncripto_strategy.models.parts import plugin_parts
from cppncripto_strategy.models.settings import LearnSettings

log = logging.getLogger(__name__)

MACRONETS = "macronets"
"""Folder of the cache that notes which bundle holds which MacroNet."""
CODE = "cppncripto_strategy.models.learning.walkforward"
"""The module whose imports are the code that a bundle follows from."""


def cache_key(
    tables: Sequence[SessionTable],
    until_ms: int,
    settings: LearnSettings,
    seed: int,
    previous: Bundle | None,
) -> str:
    """Name of a bundle in the cache: its stamp, and a hash over everything it follows from."""
    parts = {
        "settings": _settings(settings),
        "plugins": [dataclasses.asdict(part) for part in plugin_parts(settings)],
        "features": settings.session.table.digests,
        "seed": seed,
        "until": until_ms,
        "candles": fingerprint(tables, reach_ms(settings, until_ms), until_ms),
        "previous": previous.model_hash if previous is not None else None,
        "code": [closure_digest(CODE), torch.__version__],
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{ms_to_date(until_ms)}-{digest[:16]}"


def macro_key(
    tables: Sequence[SessionTable], until_ms: int, settings: LearnSettings, seed: int
) -> str:
    """Names a MacroNet: a hash over everything that it, trained from the start, follows from.

    Settings of MicroNet and of the label are not among that: bundles that differ in those alone
    have one MacroNet, to the last bit.
    """
    whole = _settings(settings)
    network = ("session", "encoder", "encoder_options", "objective", "objective_options")
    names = (*network, "pretrain", "train_days", "validate_days", "device")
    parts = {
        "settings": {name: whole[name] for name in names if name in whole},
        "plugins": whole["plugins"],
        "features": settings.session.table.digests,
        "seed": seed,
        "until": until_ms,
        "candles": fingerprint(tables, reach_ms(settings, until_ms), until_ms),
        "code": [closure_digest(CODE), torch.__version__],
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return digest[:24]


def _settings(settings: LearnSettings) -> dict[str, Any]:
    """Settings as plain values; of the device, that it is an accelerator, which adds otherwise."""
    plain = dataclasses.asdict(settings)
    device = resolve_device(plain.pop("device")).type
    return plain if device == "cpu" else plain | {"device": device}


def bundle_of_macro(cache: Path, key: str) -> Bundle | None:
    """A finished bundle with the MacroNet of this key; None where none is there, or readable."""
    path = cache / MACRONETS / f"{key}.json"
    if not path.is_file():
        return None
    try:
        with reading(path, "note of a MacroNet", BundleError):
            folder = cache / arm_folder(use_macro=True) / str(read_object(path)["bundle"])
        return read_cached(folder)
    except BundleError as error:
        log.warning("MacroNet is trained again: %s", error)
        return None


def note_macro(cache: Path, key: str, folder: Path) -> None:
    """Note that the bundle in a folder of the cache has the MacroNet of this key."""
    content = json.dumps({"bundle": folder.name}).encode()
    write_bytes(cache / MACRONETS / f"{key}.json", content)


def read_cached(folder: Path) -> Bundle | None:
    """The bundle in a folder of the cache, None where there is none that can be read.

    What cannot be read is set aside, so that a new one can take its place.
    """
    if not folder.exists():
        return None
    try:
        return Bundle.load(folder)
    except BundleError as error:
        log.warning("cached bundle is set aside and trained again: %s", error)
        aside = Path(tempfile.mkdtemp(prefix=f".damaged-{folder.name}-", dir=folder.parent))
        folder.rename(aside / folder.name)
        return None
