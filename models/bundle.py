"""A bundle: everything that turns candles into scores, in one folder, with no pickle in it.

    <bundle>/bundle.json           settings, spans, seeds, fingerprints, validation, loss curves
    <bundle>/weights.safetensors   both networks, embedding bank, score quantiles, forecaster

`bundle.json` carries the SHA-256 of the weights and of its own content; a bundle that does not
match is refused. A bundle
says until when it has seen candles (`trained_until_ms`); asking it for an earlier session is
refused, unless in-sample scoring is asked for by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cppncripto_strategy.atomic import name_file, sync_folder
from cppncripto_strategy.errors import BundleError
from cppncripto_strategy.feeds.clock import ms_to_date, ms_to_utc
from cppncripto_strategy.foreign import read_object, reading, sealed, unsealed
from cppncripto_strategy.models.forecasting.forecaster import Forecaster
from cppncripto_strategy.models.inputs.sessions import SessionSettings
from cppncripto_strategy.models.macronet import MacroNet, build_macronet
from cppncripto_strategy.models.micronet import MicroNet
from cppncripto_strategy.models.parts import PluginPart, require_parts
from cppncripto_strategy.models.settings import EMBEDDING_SIZE, MicroNetSettings

FORMAT = 4
INFO_FILE, WEIGHTS_FILE = "bundle.json", "weights.safetensors"
WITH_MACRO, WITHOUT_MACRO = "with-macro", "without-macro"
"""Folders of a run's two arms: their bundles are trained until the same days, so they never mix."""


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """What a bundle is, as written to bundle.json.

    Parameters
    ----------
    session : SessionSettings, how inputs are made.
    encoder, encoder_options, objective : MacroNet's encoder and how it was pretrained; encoder None
        when the bundle trades without macro.
    micro : MicroNetSettings.
    label : the label's settings as plain values.
    symbols : symbols it learned from.
    trained_from_ms, trained_until_ms : span of candles seen by any part of it, UTC ms.
    seed : int.
    data_fingerprint : SHA-256 over the candles it learned from.
    validation : metrics on the validation tail.
    curves : loss curves, of MacroNet and of every MicroNet initialisation.
    reason : why it was trained, in words.
    plugins : parts that come from plugin files; those that scoring needs must be loaded to read it.
    """

    session: SessionSettings
    encoder: str | None
    encoder_options: dict[str, Any]
    objective: str | None
    micro: MicroNetSettings
    label: dict[str, Any]
    symbols: tuple[str, ...]
    trained_from_ms: int
    trained_until_ms: int
    seed: int
    data_fingerprint: str
    validation: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    reason: str = "first"
    plugins: tuple[PluginPart, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"format": FORMAT, **dataclasses.asdict(self), "session": self.session.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BundleInfo:
        """Rebuild from plain values.

        Raises
        ------
        BundleError
            When the format or a feature is another, a key is missing, or a plugin that scoring
            needs is not loaded.
        """
        values = dict(values)
        _require_format(values.pop("format", None))
        try:
            values["plugins"] = tuple(PluginPart(**part) for part in values["plugins"])
            require_parts(values["plugins"])
            values["session"] = SessionSettings.from_json(values["session"])
            values["micro"] = MicroNetSettings(**values["micro"])
            values["symbols"] = tuple(values["symbols"])
            return cls(**values)
        except (KeyError, TypeError) as cause:
            raise BundleError(f"bundle.json lacks or misnames a key: {cause}") from cause


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Bundle:
    """Both networks, ready to score.

    Parameters
    ----------
    info : BundleInfo.
    macro : MacroNet, or None when trading without macro.
    micro : MicroNet.
    score_seed : float64 (Q,), quantiles of the validation scores in scattered order: what the
        threshold starts from.
    bank : float32 (D, E), embeddings of the training sessions; bank_ms : int64 (D,), their starts.
    forecaster : Forecaster of each session's volatility and range, None where it learned from too
        few days, and in bundles made before there was one.
    """

    info: BundleInfo
    macro: MacroNet | None
    micro: MicroNet
    score_seed: NDArray[np.float64]
    bank: NDArray[np.float32]
    bank_ms: NDArray[np.int64]
    forecaster: Forecaster | None = None

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {
            "score_seed": torch.from_numpy(self.score_seed),
            "bank": torch.from_numpy(self.bank),
            "bank_ms": torch.from_numpy(self.bank_ms),
        }
        for prefix, net in (("macro", self.macro), ("micro", self.micro)):
            if net is not None:
                for name, value in net.state_dict().items():
                    tensors[f"{prefix}.{name}"] = value.contiguous()
        if self.forecaster is not None:
            for name, array in self.forecaster.to_tensors().items():
                tensors[f"forecaster.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
        return tensors

    def to_bytes(self) -> tuple[bytes, bytes]:
        """bundle.json and weights.safetensors, byte for byte reproducible."""
        weights = save_tensors(self._tensors())
        digest = hashlib.sha256(weights).hexdigest()
        info = sealed({**self.info.to_json(), "weights_sha256": digest})
        return json.dumps(info, indent=1, sort_keys=True).encode(), weights

    @property
    def temperature(self) -> float:
        """Of the class probabilities; 1 in bundles made before there was one."""
        return float(self.info.validation.get("temperature", 1.0))

    @property
    def model_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over both files: the bundle's name in every table."""
        known = _HASHES.get(self)
        if known is None:
            info, weights = self.to_bytes()
            known = _HASHES[self] = hashlib.sha256(info + weights).hexdigest()[:16]
        return known

    def save(self, folder: Path) -> Path:
        """Write the bundle as `folder`, atomically; an existing equal one is left alone.

        Raises BundleError when another bundle already stands there.
        """
        info, weights = self.to_bytes()
        if folder.exists():
            if _holds(folder, info, weights):
                return folder
            raise BundleError(f"{folder} already holds another bundle: choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder.parent))
        try:
            for name, content in ((WEIGHTS_FILE, weights), (INFO_FILE, info)):
                with (temporary / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            temporary.chmod(0o755)
            temporary.replace(folder)
            sync_folder(folder.parent)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            name_file(error, folder)
            raise
        return folder

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read a bundle.

        Raises
        ------
        BundleError
            When a file is missing, damaged, changed by hand, or of another format.
        """
        again = "Take it from a copy, or train it again"
        with reading(folder / INFO_FILE, "bundle", BundleError, again):
            values = read_object(folder / INFO_FILE)
            _require_format(values.get("format"))
            values = unsealed(values)
            expected = values.pop("weights_sha256")
        with reading(folder / WEIGHTS_FILE, "bundle", BundleError, again):
            weights = (folder / WEIGHTS_FILE).read_bytes()
        if hashlib.sha256(weights).hexdigest() != expected:
            raise BundleError(f"{folder / WEIGHTS_FILE} is damaged: its SHA-256 is not {expected}")
        with reading(folder / INFO_FILE, "bundle", BundleError, again):
            info = BundleInfo.from_json(values)
        try:
            return cls._assemble(info, load_tensors(weights))
        except Exception as cause:  # whatever safetensors and torch raise
            raise BundleError(
                f"{folder} does not hold the networks it describes: {cause}"
            ) from cause

    @classmethod
    def _assemble(cls, info: BundleInfo, tensors: dict[str, torch.Tensor]) -> Bundle:
        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }

        macro = None
        if info.encoder is not None:
            macro = build_macronet(
                info.encoder,
                len(info.session.names),
                info.session.n_statistics,
                info.encoder_options,
            )
            macro.load_state_dict(part("macro."))
            macro.eval()
        arrays = {name: value.numpy() for name, value in part("forecaster.").items()}
        forecaster = Forecaster.from_tensors(info.symbols, arrays) if arrays else None
        micro = MicroNet(info.micro)
        micro.load_state_dict(part("micro."))
        micro.eval()
        return cls(
            info,
            macro,
            micro,
            tensors["score_seed"].numpy(),
            tensors["bank"].numpy(),
            tensors["bank_ms"].numpy(),
            forecaster,
        )


# A bundle's name, once it was asked for: each symbol of a session asks thrice at a rollover.
_HASHES: WeakKeyDictionary[Bundle, str] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class BundleTimeline:
    """Bundles in the order in which they become active, each from its `trained_until_ms` on.

    Parameters
    ----------
    bundles : ordered by trained_until_ms, strictly; all made of the same session settings.
    in_sample : bool, score sessions the bundles were trained on, too. For looking, not for results.

    Examples
    --------
    `cppn-bt run` and `walk_forward` leave a folder of bundles:

    >>> from cppncripto_strategy import BundleTimeline
    >>> timeline = BundleTimeline.load("bundles")  # or a run's folder, or one bundle's
    >>> len(timeline.bundles)
    1
    >>> timeline.bundles[0].info.encoder
    'tcn'
    """

    bundles: tuple[Bundle, ...]
    in_sample: bool = False

    def __post_init__(self) -> None:
        if not self.bundles:
            raise BundleError("a timeline needs at least one bundle")
        until = [bundle.info.trained_until_ms for bundle in self.bundles]
        if any(later <= earlier for earlier, later in pairwise(until)):
            raise BundleError("bundles must be ordered by trained_until, without repeats")
        first = self.bundles[0].info
        for bundle in self.bundles[1:]:
            if bundle.info.session != first.session:
                raise BundleError(
                    "bundles of one timeline must share interval, windows, features and scaler"
                )

    @classmethod
    def load(cls, folder: Path, in_sample: bool = False) -> BundleTimeline:
        """The networks in the folder of a run or session, a folder of bundles, or one bundle's.

        Of a run that was traded with and without macro the arm with macro is taken; name its
        `bundles/without-macro` for the other.

        Raises
        ------
        BundleError
            When there is no bundle, one cannot be read, or they are of more than one run.
        """
        found = _bundle_folders(Path(folder))
        if not found:
            raise BundleError(
                f"{folder} holds no bundle (a folder with {INFO_FILE}): name the folder of a run,"
                " its bundles/, or one bundle"
            )
        loaded = sorted(map(Bundle.load, found), key=lambda bundle: bundle.info.trained_until_ms)
        until = [bundle.info.trained_until_ms for bundle in loaded]
        for earlier, later in pairwise(until):
            if earlier == later:
                raise BundleError(
                    f"{folder} holds bundles of more than one run (several are trained until"
                    f" {ms_to_utc(later)}): name the folder of one run, or one bundle"
                )
        return cls(tuple(loaded), in_sample)

    def save(self, folder: Path) -> None:
        """Write every bundle into a folder of its own in `folder`, from which `load` reads them."""
        for bundle in self.bundles:
            day = ms_to_date(bundle.info.trained_until_ms)
            bundle.save(folder / f"{day}-{bundle.model_hash}")

    @property
    def session(self) -> SessionSettings:
        """The session settings all bundles share."""
        return self.bundles[0].info.session

    @property
    def receptive_field(self) -> int:
        """The longest receptive field of the MicroNets."""
        return max(bundle.micro.receptive_field for bundle in self.bundles)

    @property
    def first_session_ms(self) -> int:
        """The first session that may be scored: every bundle's own span lies before it."""
        return self.bundles[0].info.trained_until_ms

    def active_in(self, session_ms: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the active bundle in each session, -1 where none may score it, int64 (D,)."""
        until = np.array([bundle.info.trained_until_ms for bundle in self.bundles])
        chosen = np.searchsorted(until, np.asarray(session_ms), side="right") - 1
        return np.maximum(chosen, 0) if self.in_sample else chosen.astype(np.int64)

    def require_out_of_sample(self, start_ms: int) -> None:
        """Refuse to trade candles that a bundle was trained on.

        Raises
        ------
        BundleError
            When scoring would start before the first bundle's trained_until.
        """
        if not self.in_sample and start_ms < self.first_session_ms:
            found, allowed = ms_to_utc(start_ms), ms_to_utc(self.first_session_ms)
            raise BundleError(
                f"scoring from {found} was asked for, but the first bundle was trained until"
                f" {allowed}: that would be in-sample. Start later, or ask for it with"
                " in_sample=True"
            )


def _require_format(found: object) -> None:
    if found != FORMAT:
        raise BundleError(
            f"bundle format is {found!r}, this version reads {FORMAT}: train it again"
        )


def arm_folder(use_macro: bool) -> str:
    """Name of the folder that holds an arm's bundles."""
    return WITH_MACRO if use_macro else WITHOUT_MACRO


def _bundle_folders(folder: Path) -> list[Path]:
    """Folders of the bundles that a path names."""
    if (folder / INFO_FILE).exists():
        return [folder]
    folder = folder / "bundles" if (folder / "bundles").is_dir() else folder
    arms = (folder / name for name in (WITH_MACRO, WITHOUT_MACRO))
    folder = next((arm for arm in arms if arm.is_dir()), folder)
    found = sorted(path.parent for path in folder.glob(f"*/{INFO_FILE}"))
    return [path for path in found if not path.name.startswith(".")]


def _holds(folder: Path, info: bytes, weights: bytes) -> bool:
    """Whether the folder holds exactly this bundle."""
    try:
        found = (folder / INFO_FILE).read_bytes(), (folder / WEIGHTS_FILE).read_bytes()
    except OSError:
        return False
    return found == (info, weights)


def zero_context(count: int) -> torch.Tensor:
    """The embedding of a network without macro, (count, EMBEDDING_SIZE)."""
    return torch.zeros(count, EMBEDDING_SIZE)
