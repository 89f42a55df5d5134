"""What a person or a disk hands in comes out as our error, with the file's name and what to do."""

import codecs
import json
import subprocess
import sys
import zipfile

import pytest

from cppncripto_strategy.errors import BundleError, CppnError, RecipeError, SourceError
from cppncripto_strategy.evaluation.trials import Trial, TrialLedger
from cppncripto_strategy.foreign import read_object, reading, sealed, unsealed, writing
from cppncripto_strategy.paths import RecipeHome
from cppncripto_strategy.recipe import load_recipe, parse_recipe

TEXT = 'symbols = ["ETHUSDT"]  # für später\nseed = 3\n'


def raised(cause):
    raise cause


@pytest.mark.parametrize(
    "cause",
    [
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        zipfile.BadZipFile("File is not a zip file"),
        RecursionError("maximum recursion depth"),
        OverflowError("int too large"),
        MemoryError(),
        KeyError("symbols"),
        PermissionError(13, "Permission denied"),
        Exception(),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_whatever_a_parser_raises_is_ours_with_name_and_cure(cause, tmp_path):
    """A hand-written list of exceptions, and the one that is not on it."""
    path = tmp_path / "thing.bin"
    said = r"thing\.bin is not a readable thing: .+\. Cure"
    with (
        pytest.raises(SourceError, match=said) as got,
        reading(path, "thing", SourceError, "Cure"),
    ):
        raised(cause)
    assert got.value.__cause__ is cause


def test_our_own_errors_and_the_keyboard_pass_through():
    """An error that was already good, buried in another; a Ctrl-C that is swallowed."""
    with pytest.raises(BundleError, match=r"^mine$"), reading("x", "thing", SourceError):
        raised(BundleError("mine"))
    with pytest.raises(KeyboardInterrupt), reading("x", "thing", SourceError):
        raised(KeyboardInterrupt())


def test_recipe_with_a_byte_order_mark_is_read(tmp_path):
    """A recipe saved by Notepad is "not valid TOML" in line 1, column 1."""
    path = tmp_path / "mine.toml"
    path.write_bytes(codecs.BOM_UTF8 + TEXT.encode())
    assert load_recipe(path).seed == 3


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "it is UTF-16"),
        ("utf-32", "it is UTF-32"),
        ("utf-16-le", "UTF-16"),
        ("cp1252", "Windows-1252"),
    ],
)
def test_recipe_in_another_encoding_names_it(tmp_path, encoding, said):
    """A UnicodeDecodeError with a traceback, or settings read from mojibake."""
    path = tmp_path / "mine.toml"
    path.write_bytes(TEXT.encode(encoding))
    with pytest.raises(RecipeError, match=rf"mine\.toml .*({said}|not valid TOML)"):
        load_recipe(path)


@pytest.mark.parametrize("content", ["[" * 5000, "a = " + "[" * 5000, "seed = " + "9" * 5000])
def test_recipe_that_breaks_the_parser_is_refused(tmp_path, content):
    """A RecursionError, or Python's limit on digits, with a traceback."""
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=r"mine\.toml"):
        load_recipe(path)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, 10**30])
def test_seed_out_of_range_is_refused_before_candles(seed):
    """A seed that torch refuses after an hour, with an overflow."""
    with pytest.raises(RecipeError, match="seed"):
        parse_recipe({"seed": seed})
    assert parse_recipe({"seed": 2**32 - 1}).seed == 2**32 - 1


def test_out_in_the_way_of_a_file_is_said(tmp_path):
    """--out names a file: FileExistsError or NotADirectoryError with a traceback."""
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "deeper"):
        with pytest.raises(RecipeError, match="a file is in the way"):
            RecipeHome(out).claim_run()
    assert (tmp_path / "taken").read_text() == "mine"


def test_command_line_says_it_in_one_line(tmp_path):
    """A traceback where a sentence belongs."""
    (tmp_path / "mine.toml").write_bytes(TEXT.encode("utf-16"))
    done = subprocess.run(
        [sys.executable, "-m", "cppncripto_strategy.cli", "run", "mine.toml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: mine.toml is not a readable recipe: it is UTF-16, and UTF-8 is expected: save it as"
        " UTF-8"
    ]


def test_unwritable_place_is_said_with_its_reason(tmp_path):
    """A full disk as a traceback."""
    said = "x cannot be written: No space left"
    with pytest.raises(SourceError, match=said), writing(tmp_path / "x", SourceError):
        raised(OSError(28, "No space left on device"))


def test_sealed_values_come_back_and_a_change_is_noticed():
    """A key moved by hand, added or taken away."""
    values = {"b": [1.5, None, float("inf")], "a": {"z": "ü"}}
    stored = json.loads(json.dumps(sealed(values)))
    assert unsealed(stored) == values
    for changed in ({**stored, "b": []}, {**stored, "c": 1}, {"b": values["b"]}):
        with pytest.raises(ValueError, match=r"changed after|carries no"):
            unsealed(changed)


def test_json_of_another_shape_is_named(tmp_path):
    """A list where a table belongs: an AttributeError deep inside."""
    (tmp_path / "x.json").write_text("[1]")
    path = tmp_path / "x.json"
    said = "expected a JSON object, found list"
    with pytest.raises(CppnError, match=said), reading(path, "thing", SourceError):
        read_object(path)


def test_trial_of_another_type_is_skipped_and_a_folder_in_its_place_is_named(tmp_path, caplog):
    """A Sharpe ratio that is a text, found when all are averaged; a folder called trials.jsonl."""
    ledger = TrialLedger(tmp_path)
    ledger.append(Trial("f", "run", "x", 1, 0.5, 10))
    line = json.loads(ledger.path.read_text())
    with ledger.path.open("a") as stream:
        for change in (
            {"daily_sharpe": "0.5"},
            {"daily_sharpe": 10**400},
            {"days": 1.5},
            {"fingerprint": ["f"]},
        ):
            stream.write(json.dumps({**line, **change}) + "\n")
        stream.write("[" * 100_000 + "\n")
    assert [trial.fingerprint for trial in ledger.read()] == ["f"]
    assert caplog.text.count("unreadable line") == 5
    (tmp_path / "other" / "trials.jsonl").mkdir(parents=True)
    folder = TrialLedger(tmp_path / "other")
    with pytest.raises(SourceError, match="not a readable trial ledger: Is a directory"):
        folder.read()
    with pytest.raises(SourceError, match="cannot be written"):
        folder.append(Trial("f", "run", "x", 1, 0.5, 10))
