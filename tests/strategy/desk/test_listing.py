"""What is found under a folder, and by what it can be asked for."""

from __future__ import annotations

from cppncripto_strategy.desk.listing import FRESH_S, Listing, entries


def names(listing: Listing, kind: str) -> list[str]:
    return [entry.name for entry in listing.of(kind)]


def test_everything_that_people_keep_is_found(results):
    """A kind of results that the desk passes over."""
    listing = Listing(results)
    assert names(listing, "session") == ["paper/real"]
    stamps = [f"runs/tiny/2024030{day}T000000Z" for day in (1, 2, 3)]
    assert stamps == names(listing, "run")
    assert names(listing, "experiment") == ["runs/tiny/experiments/e1.json"]
    assert names(listing, "evolution") == ["runs/tiny/evolution"]
    assert names(listing, "tuning") == ["runs/tiny/tuning"]
    assert names(listing, "candles") == ["candles"]


def test_ids_are_of_a_kind_and_of_nothing_else(results):
    """A run's id that opens a session, a path that is taken for an id."""
    listing = Listing(results)
    run = listing.of("run")[0]
    assert listing.get("run", run.id) == run
    assert listing.get("session", run.id) is None
    for text in ("", "..", "../..", run.name, str(run.path), "0" * 16, "%2e%2e", "\0"):
        assert listing.get("run", text) is None


def test_links_and_hidden_folders_are_not_entered(copy_of, tmp_path):
    """A link that leads out of the folder, or in a circle."""
    outside = tmp_path / "outside"
    (copy_of / "runs" / "tiny" / "20240301T000000Z").rename(outside)
    (copy_of / "link").symlink_to(outside, target_is_directory=True)
    (copy_of / "circle").symlink_to(copy_of, target_is_directory=True)
    (copy_of / ".hidden").mkdir()
    (copy_of / ".hidden" / "session.json").touch()
    found = {entry.name for entry in entries(copy_of)}
    assert not {name for name in found if "link" in name or "circle" in name or ".hidden" in name}


def test_the_folder_itself_may_be_a_session(results):
    """`cppn-bt desk paper/real`, which shows nothing."""
    [entry] = Listing(results / "paper" / "real").of("session")
    assert entry.path == results / "paper" / "real"
    assert entry.name == "real"


def test_new_results_appear_within_seconds(copy_of, desk):
    """A desk that has to be restarted to see a run; one that walks the disk at every request."""
    now = [0.0]
    listing = Listing(copy_of, clock=lambda: now[0])
    before = len(listing.of("run"))
    desk.make_run(copy_of / "more" / "20240401T000000Z", "more", 3, 1.0)
    assert len(listing.of("run")) == before
    now[0] = FRESH_S + 0.1
    assert len(listing.of("run")) == before + 1


def test_no_folder_is_an_empty_list(tmp_path):
    """A folder that is made later."""
    assert list(entries(tmp_path / "later")) == []
