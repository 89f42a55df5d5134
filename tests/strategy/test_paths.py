"""Where results lie."""

from cppncripto_strategy.paths import results_folder


def test_results_never_share_a_folder(tmp_path):
    """A second run within the same second overwriting the first."""
    recipe = tmp_path / "mine.toml"
    first = results_folder(recipe, False, None)
    assert first.parent == tmp_path / "mine"
    first.mkdir(parents=True)
    second = results_folder(recipe, False, None)
    second.mkdir()
    third = results_folder(recipe, False, None)
    assert len({first, second, third}) == 3
    assert results_folder(recipe, False, tmp_path / "out").parent == tmp_path / "out" / "mine"
    assert results_folder(recipe, True, None).parts[:2] == ("runs", "mine")
