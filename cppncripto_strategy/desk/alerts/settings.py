"""alerts.toml: what is reported, when, and through what. Addresses of targets are secrets and stand
elsewhere: in a file that nobody else may read, or in the environment.

Left out: sending (`delivery`).
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from datetime import time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cppncripto_strategy.desk.alerts.kinds import KINDS, URGENT
from cppncripto_strategy.errors import DeskError
from cppncripto_strategy.foreign import read_text, reading

# Of a file of addresses.
LONGEST = 64 * 1024
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """Frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _known(kinds: tuple[str, ...]) -> tuple[str, ...]:
    for kind in kinds:
        if kind not in KINDS:
            close = get_close_matches(kind, KINDS, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"there is no kind {kind!r}{hint}: {', '.join(KINDS)}")
    return kinds


class Limits(Section):
    """From when on it is worth an alert.

    Parameters
    ----------
    connection_lost_s : seconds without a connection.
    silent_s : seconds without a candle written; 0 means three candles of the session.
    disk_free_gb : free space (10^9 bytes) below which the disk counts as nearly full.
    """

    connection_lost_s: Seconds = 60.0
    silent_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    disk_free_gb: Annotated[float, Field(ge=0)] = 2.0


class Delivery(Section):
    """How patiently a message is sent.

    Parameters
    ----------
    batch_s : alerts of one kind that come within so many seconds are one message; critical ones
        do not wait.
    queue : alerts that wait for a target at most; beyond, the oldest are dropped, and that is said.
    timeout_s : seconds that a program may take; services have bounds of their own, of seconds.
    retry_first_s, retry_most_s : wait after the first failure; it doubles, up to the second.
    give_up_h : hours after which a message that never arrived is dropped, and that is said.
    """

    batch_s: Annotated[float, Field(ge=0, le=3_600)] = 2.0
    queue: Annotated[int, Field(ge=10, le=10_000)] = 500
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 15.0
    retry_first_s: Seconds = 5.0
    retry_most_s: Seconds = 600.0
    give_up_h: Annotated[float, Field(gt=0, le=720)] = 24.0


class Quiet(Section):
    """Hours in which alerts wait for the end of them.

    Parameters
    ----------
    start, end : local times; a start after the end runs over midnight.
    timezone : a name such as "Europe/Berlin".
    breaks_through : kinds that are sent all the same.
    """

    start: time
    end: time
    timezone: str = "UTC"
    breaks_through: tuple[str, ...] = URGENT

    _kinds = field_validator("breaks_through")(_known)

    @field_validator("timezone")
    @classmethod
    def _zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError, LookupError):
            raise ValueError(
                f"there is no time zone {name!r}: give one such as Europe/Berlin, or UTC"
            ) from None
        return name


class Target(Section):
    """Somebody who gets alerts.

    Parameters
    ----------
    name : as errors and logs call it.
    url_file : file of addresses of apprise, one per line, that nobody else may read.
    url_env : variable of the environment that holds them, separated by blanks.
    command : a program and its arguments, given each message as JSON on its standard input.
    kinds : which alerts it gets; all that the settings name unless given.
    """

    name: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,40}$")]
    url_file: Path | None = None
    url_env: Annotated[str | None, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] = None
    command: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None

    @field_validator("kinds")
    @classmethod
    def _kinds(cls, kinds: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if kinds is None else _known(kinds)

    @model_validator(mode="after")
    def _one_way(self) -> Target:
        ways = [way for way in (self.url_file, self.url_env, self.command) if way is not None]
        if len(ways) != 1 or self.command == ():
            raise ValueError("give exactly one of url_file, url_env and command")
        return self


class AlertSettings(Section):
    """Everything of alerts.toml.

    Parameters
    ----------
    kinds : what is reported; all kinds unless given.
    limits, delivery, quiet : as their classes say; without `quiet` there are no quiet hours.
    target : who gets them.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    limits: Limits = Limits()
    delivery: Delivery = Delivery()
    quiet: Quiet | None = None
    target: Annotated[tuple[Target, ...], Field(min_length=1)]

    _kinds = field_validator("kinds")(_known)

    @model_validator(mode="after")
    def _names(self) -> AlertSettings:
        names = [target.name for target in self.target]
        if len(set(names)) != len(names):
            raise ValueError(f"targets need names of their own, found {', '.join(names)}")
        return self


def default_settings_file() -> Path:
    """`$XDG_CONFIG_HOME/cppn-bt/alerts.toml`."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "cppn-bt" / "alerts.toml"


def load_settings(path: Path) -> AlertSettings:
    """The settings of a file; a relative `url_file` lies beside it.

    Raises
    ------
    DeskError
        When it cannot be read, a value is impossible, or it names a program and others may change
        it; no value is repeated in the message, since somebody may have put an address there.
    """
    fix = "`cppn-bt alerts --example` prints one to begin with"
    with reading(path, "alerts file", DeskError, fix):
        values = tomllib.loads(read_text(path))
        mode = stat.S_IMODE(path.stat().st_mode)
    settings = parse_settings(values, path)
    if mode & 0o022 and any(target.command for target in settings.target):
        raise DeskError(
            f"{path} names a program to run, and others may change it (mode {mode:o}): chmod go-w"
        )
    return settings


def parse_settings(values: dict[str, Any], path: Path) -> AlertSettings:
    """Validate plain values. Raises DeskError as `load_settings`."""
    try:
        settings = AlertSettings.model_validate(values)
    except ValidationError as cause:
        problems = "; ".join(_explain(dict(error)) for error in cause.errors(include_input=False))
        raise DeskError(f"{path}: {problems}") from None
    targets = tuple(_beside(target, path.parent) for target in settings.target)
    return settings.model_copy(update={"target": targets})


def _beside(target: Target, folder: Path) -> Target:
    if target.url_file is None:
        return target
    return target.model_copy(update={"url_file": folder / target.url_file.expanduser()})


def _explain(error: dict[str, Any]) -> str:
    """One pydantic error as a sentence."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path) or "the settings"
    if error["type"] != "extra_forbidden":
        return f"{key}: {str(error['msg']).removeprefix('Value error, ')}"
    if path[-1] in ("url", "urls"):
        return (
            f"{key}: an address is a secret, and this file is none: put it into a file of mode 600"
            " and name that as url_file, or into the environment as url_env"
        )
    sections: dict[str, type[Section]] = {
        "limits": Limits, "delivery": Delivery, "quiet": Quiet, "target": Target,
    }  # fmt: skip
    known = list(sections.get(path[0], AlertSettings).model_fields) if path[1:] else [
        *AlertSettings.model_fields
    ]  # fmt: skip
    close = get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown key {key!r}{hint}; known here: {', '.join(sorted(known))}"


def addresses(target: Target, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The addresses of a target; none for a command. They are secrets.

    Raises
    ------
    DeskError
        When the file may be read by others or holds none, or the variable is not set.
    """
    if target.url_env is not None:
        found = environment.get(target.url_env, "").split()
        if not found:
            raise DeskError(f"target {target.name}: the environment has no {target.url_env}")
        return found
    return [] if target.url_file is None else _from_file(target.name, target.url_file)


def _from_file(name: str, path: Path) -> list[str]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, encoding="utf-8", errors="replace") as file:
            state = os.fstat(file.fileno())
            text = file.read(LONGEST)
    except OSError as cause:
        why = cause.strerror or cause
        raise DeskError(f"target {name}: {path} cannot be read: {why}") from cause
    if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o077:
        raise DeskError(
            f"target {name}: others may read {path}, which has mode"
            f" {stat.S_IMODE(state.st_mode):o}: chmod 600 it"
        )
    lines = (line.strip() for line in text.splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise DeskError(f"target {name}: {path} holds no address, one per line")
    return found
