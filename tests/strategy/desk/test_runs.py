"""Runs, experiments and evolutions as rows, and runs side by side."""

from __future__ import annotations

import pytest

from cppncripto_strategy.desk import runs
from cppncripto_strategy.desk.listing import Listing


def entry_of(root, kind="run", number=0):
    return Listing(root).of(kind)[number]


def test_a_run_is_what_it_wrote(results, desk):
    """A number of another section of the metrics, or one made up."""
    seen = runs.run(entry_of(results))
    assert (seen.recipe, seen.sharpe, seen.total_return, seen.trials) == ("tiny", 1.5, 0.1, 1)
    assert seen.benchmark_return == 0.05
    assert seen.without_macro_return is None
    assert seen.start is not None
    assert seen.start.ms == desk.start_ms
    assert (seen.evidence_open, seen.report, seen.problem) == (False, True, "")


def test_a_run_that_failed_says_why(results):
    """A failed run that vanishes, or stands there without a word."""
    assert runs.run(entry_of(results, number=2)).problem == "did not finish: no candles of AUSDT"


def test_unknown_sharpe_is_not_zero(results):
    """A Sharpe ratio that is not defined, shown as 0."""
    assert runs.run(entry_of(results, number=1)).sharpe is None


def test_compare_names_what_differs_and_draws_both(results):
    """A difference that is not shown, or a key that is alike and is."""
    found = runs.compare([entry_of(results, number=n) for n in (0, 1)])
    differing = {difference.key: difference.values for difference in found.differences}
    assert differing == {"seed": ["1", "2"], "strategy.hold_candles": ["4", "5"]}
    assert [curve.growth[0] for curve in found.curves] == [1.0, 1.0]
    assert {len(curve.time_ms) for curve in found.curves} == {200}


def test_a_run_without_equity_is_compared_all_the_same(results):
    """One unfinished run that takes the comparison down."""
    found = runs.compare([entry_of(results, number=n) for n in (0, 2)])
    assert found.curves[1].problem
    assert found.curves[0].growth


@pytest.mark.parametrize("name", ["metrics.json", "manifest.json", "recipe.toml"])
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"[]", b"{" * 100_000, b'{"strategy": 3}'])
def test_damage_gives_a_row_with_its_reason(copy_of, name, damage):
    """A damaged file that takes the table of runs down."""
    entry = entry_of(copy_of)
    (entry.path / name).write_bytes(damage)
    seen, detail = runs.run(entry), runs.run_detail(entry)
    assert seen.name == detail.name == entry.name
    if damage != b'{"strategy": 3}' and not (name == "recipe.toml" and not damage):
        assert seen.problem
        assert str(copy_of) not in seen.problem


def test_damaged_equity_is_said_on_its_curve(copy_of):
    """A torn Parquet file that takes the comparison down."""
    entry = entry_of(copy_of)
    (entry.path / "equity.parquet").write_bytes(b"PAR1")
    assert "equity.parquet" in runs.curve(entry).problem


def test_huge_files_are_not_read(copy_of, monkeypatch):
    """A file of gigabytes under a known name that fills the memory."""
    monkeypatch.setattr(runs, "MAX_BYTES", 100)
    assert "more than any" in runs.run(entry_of(copy_of)).problem


def test_a_report_that_is_a_link_is_not_served(copy_of, tmp_path):
    """report.html -> /etc/passwd."""
    entry = entry_of(copy_of)
    assert runs.report(entry) == b"<!doctype html><title>1</title><p>report</p>"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (entry.path / "report.html").unlink()
    assert runs.report(entry) is None
    (entry.path / "report.html").symlink_to(secret)
    assert runs.report(entry) is None


def test_experiments_and_evolutions_say_how_they_stand(results):
    """An experiment whose verdict nobody sees."""
    verdict = runs.experiment(entry_of(results, "experiment"))
    assert (verdict.title, verdict.lines) == ("Macro", ["Macro helps."])
    evolution = runs.experiment(entry_of(results, "evolution"))
    assert evolution.lines == ["generation 4, front of 2; no champion"]
    search = runs.experiment(entry_of(results, "tuning"))
    assert search.lines == [
        "12 trials: 11 complete, 1 pruned, 0 failed, 0 running",
        "best trial 7: sharpe 1.25",
        "the sealed span is unopened",
    ]


def test_a_search_under_way_says_so(copy_of):
    """A search that is shown only once it is over."""
    entry = entry_of(copy_of, "tuning")
    (entry.path / "study.journal").touch()
    (entry.path / "search.json").unlink()
    assert "under way" in runs.experiment(entry).lines[0]
    (entry.path / "search.json").write_text('{"trials": 3, "best": {"values": ["x"]}}')
    assert runs.experiment(entry).name == "runs/tiny/tuning"


def test_files_are_named_as_their_writers_name_them():
    """A page that was renamed where it is written, and is found no more."""
    pytest.importorskip("optuna")
    from cppncripto_strategy.evolution import search as evolution
    from cppncripto_strategy.tuning import search as tuning
    from cppncripto_strategy.tuning import storage

    assert evolution.PAGE == runs.EVOLUTION_PAGE
    assert {evolution.CHECKPOINT, evolution.CHAMPION} == {"checkpoint.json", "champion.json"}
    assert (tuning.SUMMARY, tuning.PAGE) == (runs.SEARCH_FILE, runs.TUNING_PAGE)
    assert storage.JOURNAL_FILE == "study.journal"
