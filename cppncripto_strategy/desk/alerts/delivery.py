"""A message through one target. An address is a secret: it stands in no log, error or reason.

apprise and the libraries below it log addresses, or parts of them; they are silenced here, and
whatever is passed on has every part of every address taken out.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

import apprise

from cppncripto_strategy.desk.alerts.hook import HookSender
from cppncripto_strategy.desk.alerts.kinds import CRITICAL, WARNING
from cppncripto_strategy.desk.alerts.outbox import words_of
from cppncripto_strategy.desk.alerts.settings import AlertSettings, addresses
from cppncripto_strategy.errors import DeskError

HIDDEN = "***"
# Parts of an address shorter than this are words such as "www", and none of them opens anything.
SHORTEST = 4
_SEPARATORS = re.compile(r"[/:@?&=#;,+|\s]+")
_TALKATIVE = ("apprise", "urllib3", "requests", "requests_oauthlib")
_REASON_LENGTH = 300


class Sender(Protocol):
    """Sends messages to one target."""

    def send(self, message: dict[str, Any]) -> str:
        """Send one; the reason why it did not arrive, empty when it did. Raises nothing."""


class Redactor:
    """Takes every part of some secrets out of texts.

    Parameters
    ----------
    secrets : addresses.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        parts: set[str] = set()
        for secret in secrets:
            for form in (secret, unquote(secret)):
                found = [form, *_SEPARATORS.split(form.partition("://")[2])]
                parts.update(part for part in found if len(part) >= SHORTEST)
        longest_first = sorted(parts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
        self._none = not parts

    def __call__(self, text: str) -> str:
        """The text without them."""
        return text if self._none else self._pattern.sub(HIDDEN, text)


class AppriseSender:
    """Sends by apprise to one address.

    Parameters
    ----------
    address : the secret.
    where : how an error names it: the target, and which line.
    redact : takes all addresses out of reasons.

    Raises
    ------
    DeskError
        When apprise knows no such service, or cannot read the address; it is not repeated.
    """

    def __init__(self, address: str, where: str, redact: Redactor) -> None:
        silence(redact)
        self._redact = redact
        plugin = apprise.Apprise.instantiate(address, suppress_exceptions=True)
        if plugin is None:
            raise DeskError(
                f"{where} is no address that apprise understands: see `apprise --details` for the"
                " services and how each is written"
            )
        self._apprise = apprise.Apprise()
        self._apprise.add(plugin)

    def send(self, message: dict[str, Any]) -> str:
        """As `Sender`."""
        kinds = {CRITICAL: apprise.NotifyType.FAILURE, WARNING: apprise.NotifyType.WARNING}
        try:
            with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
                taken = self._apprise.notify(
                    title=message["title"],
                    body=words_of(message),
                    notify_type=kinds.get(message["severity"], apprise.NotifyType.INFO),
                    body_format=apprise.NotifyFormat.TEXT,
                )
                reason = " ".join(said.getvalue().split())
        except Exception as error:  # a service's plugin may raise anything
            return self._redact(f"{type(error).__name__}: {error}")[:_REASON_LENGTH]
        if taken:
            return ""
        return self._redact(reason)[:_REASON_LENGTH] or "the service did not take it"


class _Hide(logging.Filter):
    """Takes addresses out of records, whatever listens to them."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redact(record.getMessage()), None
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def silence(redact: Redactor) -> None:
    """Keep apprise, and what it sends with, out of every log: their lines hold addresses.

    apprise's warnings are the reasons why something did not arrive; they are kept, without them.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        logging.getLogger(name).propagate = False
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.WARNING)
    for present in [one for one in logger.filters if isinstance(one, _Hide)]:
        logger.removeFilter(present)
    logger.addFilter(_Hide(redact))
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def senders(
    settings: AlertSettings, environment: Mapping[str, str] = os.environ
) -> dict[str, Sender]:
    """Name -> sender of every target; a target of several addresses is one sender per address,
    named "phone", "phone#2" and so on, so that each is sent again by itself.

    Raises
    ------
    DeskError
        When addresses cannot be had or understood.
    """
    found = {target.name: addresses(target, environment) for target in settings.target}
    redact = Redactor(address for listed in found.values() for address in listed)
    hidden = [target.url_env for target in settings.target if target.url_env is not None]
    made: dict[str, Sender] = {}
    for target in settings.target:
        if target.command is not None:
            made[target.name] = HookSender(target.command, settings.delivery.timeout_s, hidden)
        for number, address in enumerate(found[target.name], start=1):
            name = target.name if number == 1 else f"{target.name}#{number}"
            where = f"target {target.name}: address {number}"
            made[name] = AppriseSender(address, where, redact)
    return made


def wanted_by(settings: AlertSettings, sender: str) -> Sequence[str]:
    """Kinds that a sender's target gets."""
    [target] = [one for one in settings.target if one.name == sender.partition("#")[0]]
    return [k for k in settings.kinds if target.kinds is None or k in target.kinds]
