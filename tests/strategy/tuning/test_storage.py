"""Where a study is kept: killed writers, damaged files, and nothing that is ever unpickled."""

import json
import pickle
import sys

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError, SourceError
from cppncripto_strategy.tuning.storage import JOURNAL_FILE, Journal, open_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_in(folder):
    return optuna.create_study(storage=open_storage(folder), study_name="s", load_if_exists=True)


def finish(study, value):
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, value)


def test_a_line_torn_by_a_kill_is_cut_and_nothing_else(tmp_path, caplog):
    """Half a line glued to the next one: every later reader stops there, and the study is gone."""
    finish(study_in(tmp_path), 1.0)
    path = tmp_path / JOURNAL_FILE
    whole = path.read_bytes()
    for torn in (b"{", b'{"op_code":4,"worker', b'{"op_code":6}'):
        path.write_bytes(whole + torn)
        study = study_in(tmp_path)
        assert [t.value for t in study.trials] == [1.0]
        finish(study, 2.0)
        assert [t.value for t in study_in(tmp_path).trials] == [1.0, 2.0]
        assert "half a line" in caplog.text
        for line in path.read_text().splitlines():
            json.loads(line)


@given(st.integers(0, 2**31))
def test_cut_anywhere_the_journal_opens_and_takes_more(tmp_path_factory, place):
    """A power cut at a byte that nobody tried."""
    folder = tmp_path_factory.mktemp("cut")
    journal = Journal(folder / JOURNAL_FILE)
    journal.append_logs([{"op_code": 0, "worker_id": "w", "study_name": "é", "n": n} for n in "ab"])
    content = (folder / JOURNAL_FILE).read_bytes()
    kept = content[: place % (len(content) + 1)]
    (folder / JOURNAL_FILE).write_bytes(kept)
    again = Journal(folder / JOURNAL_FILE)
    again.append_logs([{"last": True}])
    logs = list(Journal(folder / JOURNAL_FILE).read_logs(0))
    assert len(logs) == kept.count(b"\n") + 1
    assert logs[-1] == {"last": True}


def test_a_journal_that_is_damaged_inside_is_refused(tmp_path):
    """Trials silently lost from the middle on."""
    finish(study_in(tmp_path), 1.0)
    path = tmp_path / JOURNAL_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\x00garbage\n", *lines[1:]]))
    with pytest.raises(SourceError, match=r"study\.journal is not a readable journal"):
        open_storage(tmp_path)


class Mine:
    """What a pickle of it would do when it is loaded."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle from a study's file was loaded",))


def test_nothing_in_a_study_is_unpickled(tmp_path):
    """A study from elsewhere that runs its author's code."""
    poison = pickle.dumps(Mine())
    study = study_in(tmp_path)
    study._storage.set_study_system_attr(study._study_id, "cma:n", poison.hex())
    trial = study.ask()
    for key in ("cma:optimizer:0", "cma:optimizer"):
        study._storage.set_trial_system_attr(trial._trial_id, key, poison.hex())
    study.tell(trial, 1.0)
    (tmp_path / f"{JOURNAL_FILE}.snapshot").write_bytes(poison)
    again = study_in(tmp_path)
    finish(again, 2.0)
    assert len(again.trials) == 2


@pytest.mark.parametrize("url", ["redis://localhost:6379", "rediss://h", "study.db", "nosuch://x"])
def test_urls_that_would_unpickle_or_mean_nothing_are_refused(tmp_path, url):
    """Optuna keeps snapshots in Redis as pickles."""
    with pytest.raises(RecipeError, match=r"refused|no URL|does not open"):
        open_storage(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("postgresql+psycopg://u@h/n", "psycopg", "psycopg[binary]"),
        ("mysql+mysqldb://u@h/n", "MySQLdb", "mysqlclient"),
    ],
)
def test_a_database_without_its_driver_names_what_to_install(
    tmp_path, monkeypatch, url, module, package
):
    """Optuna says "install appropriate one", and SQLAlchemy 2.1 wants another one than 2.0."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecipeError) as refused:
        open_storage(tmp_path, url)
    assert f"pip install '{package}'" in str(refused.value)


def test_a_database_keeps_trials(tmp_path):
    """An option that is only read."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=open_storage(tmp_path, url), study_name="s")
    finish(study, 3.0)
    again = optuna.load_study(storage=open_storage(tmp_path, url), study_name="s")
    assert again.best_value == 3.0
    assert not (tmp_path / JOURNAL_FILE).exists()
