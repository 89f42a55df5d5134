"""The search space: every mistake is refused where it stands, before anything runs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.tuning.space import (
    candidate,
    candidate_toml,
    check_space,
    extremes,
    read_space,
)

WRONG = {
    "an unknown key": ({"micro.chanels": {"int": [8, 16]}}, "did you mean 'channels'"),
    "an unknown option": (
        {"macro.encoder_options.chanels": {"int": [8, 16]}},
        "unknown option 'chanels'.*did you mean 'channels'",
    ),
    "a value out of range": ({"threshold.quantile": {"float": [0.1, 0.7]}}, "less than 0.5"),
    "a number that is not whole": ({"micro.channels": {"float": [8, 9.5]}}, "valid integer"),
    "an unknown word": ({"micro.channels": {"itn": [8, 16]}}, "did you mean 'int'"),
    "two kinds": ({"micro.channels": {"int": [8, 16], "choice": [8]}}, "exactly one of"),
    "ends in the wrong order": ({"micro.channels": {"int": [16, 8]}}, "lowest, highest"),
    "a logarithm of 0": ({"micro.weight_decay": {"float": [0, 1], "log": True}}, "above 0"),
    "costs": ({"broker.fee_bps": {"float": [0, 1]}}, "may not choose what trading costs"),
    "candles": ({"candles.planted.mu": {"float": [0, 1]}}, "may not choose the candles"),
    "a seed": ({"seed": {"int": [0, 9]}}, "may not choose luck"),
    "no choice": ({"micro.channels": {"choice": []}}, "choice needs a list"),
    "a value for a table": ({"micro.channels": 8}, "expected a table"),
    "nothing": ({}, "there is no search space"),
    "a condition on a stranger": (
        {"micro.channels": {"int": [8, 16], "when": {"macro.encodr": "tcn"}}},
        "not in the space",
    ),
    "a condition that never holds": (
        {
            "macro.encoder": {"choice": ["tcn", "gru"]},
            "macro.encoder_options.layers": {"int": [1, 2], "when": {"macro.encoder": "grv"}},
        },
        "never is 'grv'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_space_is_refused_by_name(name):
    """A typo that is found after a night of training."""
    tables, words = WRONG[name]
    with pytest.raises(RecipeError, match=words):
        check_space(Recipe(), read_space(tables))


def test_the_message_names_the_key_of_the_space():
    """A range that is refused without saying which of twenty."""
    with pytest.raises(RecipeError, match=r'\[space\] "micro.channels" at 0'):
        check_space(Recipe(), read_space({"micro.channels": {"int": [0, 8]}}))


def test_tables_and_dotted_keys_are_one():
    """[space.micro] channels = ... read as an entry of words nobody knows."""
    dotted = read_space({"micro.channels": {"int": [8, 16]}, "seedless": {"choice": [1]}})
    nested = read_space({"micro": {"channels": {"int": [8, 16]}}, "seedless": {"choice": [1]}})
    assert dotted == nested


def test_extremes_bring_the_conditions_that_they_need():
    """A GRU's layers tried on the TCN, and refused for it."""
    space = read_space(
        {
            "macro.encoder_options.layers": {"int": [1, 3], "when": {"macro.encoder": "gru"}},
            "macro.encoder": {"choice": ["tcn", "gru"]},
        }
    )
    tried = [changes for _, changes in extremes(space)]
    assert {"macro.encoder": "gru", "macro.encoder_options.layers": 3} in tried
    assert space.keys[0] == "macro.encoder"  # what others depend on is drawn first
    assert len(check_space(Recipe(), space)) == 4


def test_a_conditional_key_varies_only_under_its_condition():
    """Options of an encoder that was not chosen, in every second candidate."""
    space = read_space(
        {
            "macro.encoder": {"choice": ["tcn", "gru"]},
            "macro.encoder_options.layers": {"int": [1, 3], "when": {"macro.encoder": ["gru"]}},
        }
    )

    class Asked:
        def suggest_categorical(self, name, labels):
            return "tcn"

    assert space.suggest(Asked()) == {"macro.encoder": "tcn"}


def test_lists_and_tables_can_be_chosen():
    """Choices that Optuna cannot hold, stored as their repr and never read back."""
    space = read_space({"macro.encoder_options.dilations": {"choice": [[1, 2], [1, 2, 4]]}})
    (dimension,) = space.dimensions
    label = list(dimension.labels)[1]
    assert space.changes({dimension.key: label}) == {dimension.key: [1, 2, 4]}
    changed = candidate(Recipe(), space.changes({dimension.key: label}))
    assert changed.macro.encoder_options["dilations"] == [1, 2, 4]


def test_the_grid_has_every_value_and_refuses_what_it_cannot_list():
    """A range without its upper end, or a grid of a continuum."""
    space = read_space(
        {
            "micro.channels": {"int": [8, 16], "step": 4},
            "threshold.quantile": {"float": [0.1, 0.3], "step": 0.1},
        }
    )
    assert space.grid()["micro.channels"] == [8, 12, 16]
    assert space.grid()["threshold.quantile"] == pytest.approx([0.1, 0.2, 0.3])
    assert space.grid_size == 9
    for entry in ({"float": [0.1, 0.3]}, {"float": [0.1, 0.3], "step": 1e-7}):
        with pytest.raises(RecipeError):
            read_space({"threshold.quantile": entry}).grid()


def test_lines_to_copy_are_the_changes():
    """A recipe to copy that is another candidate's."""
    import tomllib

    changes = {"micro.channels": 8, "threshold.mode": "static", "name": "x"}
    nested = {"micro": {"channels": 8}, "threshold": {"mode": "static"}, "name": "x"}
    assert tomllib.loads(candidate_toml(changes)) == nested


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["int", "float", "choice", "log", "when", "x.y"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["micro.channels", "micro", "threshold.mode"]), json_values))
def test_any_table_is_a_space_or_an_error_of_ours(tables):
    """A traceback for an entry that nobody thought of."""
    try:
        space = read_space(tables)
        check_space(Recipe(), space)
    except RecipeError:
        return
    assert json.dumps(space.to_plain())
