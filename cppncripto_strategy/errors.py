"""Our own errors: each says what was found, what was expected, and the likely fix.

CppnError
├── CandleError        a candle or a span of candles breaks a rule
│   └── StoreError     the candle store cannot be read or written as asked
├── SourceError        an exchange, archive or file did not give what it promised
├── RecipeError        a recipe has an unknown, missing or impossible setting
├── BundleError        a bundle is damaged, unknown, or asked to score its own past
├── TrainingError      there is too little, or too poor, data to learn from
├── SessionError       a paper session cannot start, resume or be compared
│   ├── CheckpointError  a kept state of a session does not fit what the session recorded
│   └── NothingLiveError  a session has seen too little to be reported
├── DeskError          a desk cannot serve as asked, or not safely
└── AccountError       an account's records contradict each other
"""


class CppnError(Exception):
    """Base of every error this package raises on purpose."""


class CandleError(CppnError, ValueError):
    """A candle or a span of candles breaks a rule; the message names the row and the rule."""


class StoreError(CandleError):
    """The candle store cannot be read or written as asked; it was left as it was."""


class SourceError(CppnError):
    """An exchange, archive or file did not give what it promised."""


class RecipeError(CppnError, ValueError):
    """A recipe has an unknown, missing or impossible setting."""


class BundleError(CppnError):
    """A bundle is damaged, unknown, or asked to score candles it was trained on."""


class TrainingError(CppnError):
    """There is too little, or too poor, data to learn from."""


class SessionError(CppnError):
    """A paper session cannot start, resume or be compared."""


class CheckpointError(SessionError):
    """A kept state of a session does not fit what the session recorded: it is not to be used."""


class NothingLiveError(SessionError):
    """A session has seen fewer than two live candles: there is nothing to report yet."""


class DeskError(CppnError):
    """A desk cannot serve as asked: others could listen in, or its token is missing or open."""


class AccountError(CppnError):
    """An account's fills, ledger, trades and positions contradict each other."""
