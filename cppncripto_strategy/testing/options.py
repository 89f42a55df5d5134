"""What the options of every kind of part have to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cppncripto_strategy.errors import RecipeError

UNKNOWN = "no_such_option"


def check_refuses_unknown(what: str, read: Callable[[Mapping[str, Any]], Any]) -> None:
    """An unknown option is refused by its name.

    Parameters
    ----------
    what : what is tested, such as "encoder".
    read : reads plain options as the part does.

    Raises
    ------
    AssertionError
        When the option is taken, or refused without its name.
    """
    try:
        read({UNKNOWN: 1})
    except RecipeError as error:
        if UNKNOWN not in str(error):
            raise AssertionError(
                f"the {what} refuses an unknown option without a name: {error}"
            ) from error
    else:
        raise AssertionError(f"the {what} takes an option that it does not have")
