"""alerts.toml: what is refused, in which words; and addresses, which nobody ever reads there."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("apprise")

from cppncripto_strategy.desk.alerts.kinds import KINDS, URGENT
from cppncripto_strategy.desk.alerts.settings import addresses, load_settings
from cppncripto_strategy.errors import DeskError

SECRET = "tgram://123456789:AAplantedSecretToken/5551234"
QUIET = "[quiet]\nstart = 22:00:00\nend = 07:00:00\n"
TARGET = '[[target]]\nname = "phone"\nurl_env = "ALERT_URLS"\n'


def load(folder: Path, text: str, mode: int = 0o600):
    """The settings of a file with this text."""
    path = folder / "alerts.toml"
    path.write_text(text)
    path.chmod(mode)
    return load_settings(path)


def test_the_example_is_right_and_says_every_default(tmp_path):
    """An example that is refused, or shows another default than the one that is used."""
    text = (files("cppncripto_strategy.desk.alerts") / "example.toml").read_text("utf-8")
    shown, bare = load(tmp_path, text), load(tmp_path, TARGET)
    assert shown.limits == bare.limits
    assert shown.delivery == bare.delivery
    assert bare.kinds == tuple(KINDS)
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    quiet = "\n".join(lines[lines.index(next(li for li in lines if li.startswith("[quiet]"))) :])
    assert load(tmp_path, f"{TARGET}{quiet}").quiet.breaks_through == URGENT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "target"),
        ("nonsense", "not valid TOML"),
        (f"{TARGET}[limit]\nsilent_s = 1", "did you mean 'limits'"),
        (f"{TARGET}[limits]\nsilent = 1", "did you mean 'silent_s'"),
        (f"{TARGET}[delivery]\nqueue = 1", "delivery.queue: "),
        (f"kinds = ['filll']\n{TARGET}", "did you mean 'fill'"),
        (f"{TARGET}kinds = ['deid']", "did you mean 'died'"),
        (f"{TARGET}{TARGET}", "names of their own"),
        (f'{TARGET}command = ["x"]', "exactly one of"),
        ("[[target]]\nname = 'x'\ncommand = []", "exactly one of"),
        ("[[target]]\nname = 'x'", "exactly one of"),
        ("[[target]]\nname = 'a b'\nurl_env = 'X'", "target.0.name"),
        (f"{TARGET}{QUIET}timezone = 'Berlin'", "Europe/Berlin"),
        (f"{TARGET}[quiet]\nstart = 'x'\nend = 07:00:00", "quiet.start"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, text, words):
    """A typing error that silences an alert."""
    with pytest.raises(DeskError, match=r"alerts\.toml") as refused:
        load(tmp_path, text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f"[[target]]\nname = 'x'\nurl = '{SECRET}'",
        f"urls = ['{SECRET}']\n{TARGET}",
        f"[[target]]\nname = '{SECRET}'\nurl_env = 'X'",
        f"[[target]]\nname = 'x'\nurl_env = '{SECRET}'",
        f"{TARGET}[limits]\nsilent_s = '{SECRET}'",
    ],
)
def test_an_address_in_the_settings_is_refused_and_not_repeated(tmp_path, text):
    """A token in a file that is copied about; the error that shows it once more."""
    with pytest.raises(DeskError) as refused:
        load(tmp_path, text)
    shown = f"{refused.value!r} {refused.value.__cause__!r}"
    assert "planted" not in shown
    assert "5551234" not in shown


def test_a_missing_file_says_where_one_comes_from(tmp_path):
    """A first start that ends in a traceback."""
    with pytest.raises(DeskError, match="alerts --example"):
        load_settings(tmp_path / "alerts.toml")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_program_is_not_taken_from_a_file_that_others_may_change(tmp_path, mode):
    """Somebody else's program, run as you."""
    with pytest.raises(DeskError, match="chmod go-w"):
        load(tmp_path, "[[target]]\nname = 'x'\ncommand = ['true']", mode)
    load(tmp_path, TARGET, mode)


def test_addresses_come_from_a_file_beside_the_settings(tmp_path):
    """A path from another folder; a comment that is taken for an address."""
    settings = load(tmp_path, "[[target]]\nname = 'x'\nurl_file = 'urls'")
    (tmp_path / "urls").touch(mode=0o600)
    (tmp_path / "urls").write_text(f"# mine\n\n  {SECRET}  \njson://localhost\n")
    assert addresses(settings.target[0]) == [SECRET, "json://localhost"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_of_addresses_that_others_may_read_is_refused(tmp_path, mode):
    """Everybody on the machine who can write into your chat."""
    settings = load(tmp_path, "[[target]]\nname = 'x'\nurl_file = 'urls'")
    (tmp_path / "urls").write_text(SECRET)
    (tmp_path / "urls").chmod(mode)
    with pytest.raises(DeskError, match="chmod 600") as refused:
        addresses(settings.target[0])
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize("what", ["link", "folder", "absent", "empty"])
def test_a_file_of_addresses_must_be_one(tmp_path, what):
    """A link to somebody else's file, or nothing, and alerts that go nowhere in silence."""
    settings = load(tmp_path, "[[target]]\nname = 'x'\nurl_file = 'urls'")
    path = tmp_path / "urls"
    if what == "link":
        (tmp_path / "real").touch(mode=0o600)
        path.symlink_to(tmp_path / "real")
    elif what == "folder":
        path.mkdir(mode=0o700)
    elif what == "empty":
        path.touch(mode=0o600)
        path.write_text("# nothing\n")
    with pytest.raises(DeskError, match="target x: "):
        addresses(settings.target[0])


def test_addresses_come_from_the_environment(tmp_path, monkeypatch):
    """A variable that is not set, and nobody is notified of anything."""
    settings = load(tmp_path, TARGET)
    assert addresses(settings.target[0], {"ALERT_URLS": f" {SECRET}\njson://x "}) == [
        SECRET, "json://x",
    ]  # fmt: skip
    monkeypatch.delenv("ALERT_URLS", raising=False)
    with pytest.raises(DeskError, match="no ALERT_URLS"):
        addresses(settings.target[0], os.environ)
