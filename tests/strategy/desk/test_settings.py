"""Where a desk may listen, and to which names it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from cppncripto_strategy.desk.settings import DeskSettings, is_loopback
from cppncripto_strategy.errors import DeskError


def settings(**changes) -> DeskSettings:
    return DeskSettings(Path("."), Path("token"), **changes)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "desk.example.org", ""])
def test_an_address_of_others_is_refused_without_encryption(host):
    """A token that anybody on the network reads on its way."""
    with pytest.raises(DeskError, match="--tls-cert"):
        settings(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_this_machine_is_allowed(host):
    """A desk that refuses the address it has by default."""
    assert is_loopback(settings(host=host).host)


def test_others_are_let_in_by_tls_or_behind_a_proxy(tmp_path):
    """A refusal with no way past it."""
    files = {name: tmp_path / name for name in ("tls_cert", "tls_key")}
    with pytest.raises(DeskError, match="no file"):
        settings(host="0.0.0.0", **files)
    for path in files.values():
        path.touch()
    assert settings(host="0.0.0.0", **files).secure
    assert settings(host="0.0.0.0", behind_proxy=True).secure
    with pytest.raises(DeskError, match="both files"):
        settings(tls_cert=files["tls_cert"])


@pytest.mark.parametrize("name", ["a b", "x/y", "", "<script>", "a:80", "-x", "a\r\nb"])
def test_names_and_origins_are_names_and_origins(name):
    """A header made of a setting."""
    with pytest.raises(DeskError, match="host name"):
        settings(names=(name,))
    with pytest.raises(DeskError, match="origin"):
        settings(origins=(name,))
    with pytest.raises(DeskError, match="origin"):
        settings(origins=("*",))


def test_hosts_are_its_own_names_with_the_port():
    """A name of anybody's, or of a default port that is not served."""
    assert settings(port=8470).hosts == {"127.0.0.1:8470", "localhost:8470", "[::1]:8470"}
    assert "desk.example.org" in settings(behind_proxy=True, names=("Desk.example.org",)).hosts
