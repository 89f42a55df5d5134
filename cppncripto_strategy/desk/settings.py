"""How a desk serves: address, names, limits. Refused when anybody but this machine could listen in.

Left out: the token (`credentials`), which is never a setting.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from cppncripto_strategy.errors import DeskError

DEFAULT_PORT = 8470
_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask for.

    Parameters
    ----------
    body_bytes : of a request's body. candles_bytes : of one that brings candles.
    head_bytes : of a request's line and headers together.
    head_s, body_s : seconds until they must have come.
    per_second, burst : requests of one address, signed in or not.
    failures_per_minute : wrong tokens of one address; then it waits.
    connections : at once. streams : of those, pages that are updated while they stand open.
    """

    body_bytes: int = 256 * 1_024
    candles_bytes: int = 4 * 1_024 * 1_024
    head_bytes: int = 16 * 1_024
    head_s: float = 10.0
    body_s: float = 10.0
    per_second: float = 300.0
    burst: int = 600
    failures_per_minute: int = 20
    connections: int = 256
    streams: int = 100


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """What is served, where, and under which names.

    Parameters
    ----------
    folder : the results.
    token_file : where the token lies; made at the first start.
    host, port : the address that is bound.
    tls_cert, tls_key : files of a certificate and its key; both or none.
    behind_proxy : a reverse proxy on this machine encrypts for the desk, and names the client.
    names : host names under which it is reached, besides the address itself.
    origins : web pages of other origins that may read the API with a token (CORS).
    limits : what a client may ask for.

    Raises
    ------
    DeskError
        When others could listen in or a setting is impossible.
    """

    folder: Path
    token_file: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise DeskError("TLS needs both files: --tls-cert and --tls-key")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise DeskError(f"there is no file {path}: TLS needs a certificate and its key")
        if not (is_loopback(self.host) or self.tls or self.behind_proxy):
            raise DeskError(
                f"{self.host} can be reached by others, who could read the token on its way: give"
                " --tls-cert and --tls-key, or --behind-proxy where a reverse proxy encrypts, or"
                " leave --host at 127.0.0.1"
            )
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise DeskError(f"{name!r} is no host name: give one such as desk.example.org")
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise DeskError(f"{origin!r} is no origin: give one such as https://example.org")

    @property
    def tls(self) -> bool:
        """Whether the desk itself encrypts."""
        return self.tls_cert is not None

    @property
    def secure(self) -> bool:
        """Whether browsers reach it by https alone."""
        return self.tls or self.behind_proxy

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the Host header that are answered; lower case."""
        names = {self.host, *self.names}
        if is_loopback(self.host):
            names |= {"127.0.0.1", "localhost", "::1"}
        written = {f"[{name}]" if ":" in name else name.lower() for name in names}
        ports = {f"{name}:{self.port}" for name in written}
        return frozenset(ports | (written if self.secure or self.port == 80 else set()))

    @property
    def address(self) -> str:
        """The address that a person types."""
        name = self.names[0] if self.names else self.host
        shown = f"[{name}]" if ":" in name else name
        return f"{'https' if self.tls else 'http'}://{shown}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
