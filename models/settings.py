"""How the networks are shaped and how long they learn: frozen settings, each default once.

A recipe takes its defaults from here, and so does Python code. Torch is not imported.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.models.labels import LabelSettings

if TYPE_CHECKING:
    from cppncripto_strategy.models.inputs.sessions import SessionSettings

EMBEDDING_SIZE = 128
SHORT_WINDOW = 60

DeviceName = Literal["auto", "cpu", "cuda"]
"""Where networks learn: "auto" is an accelerator where there is one."""


@dataclass(frozen=True, slots=True)
class MicroNetSettings:
    """Shape of a MicroNet.

    Parameters
    ----------
    n_features : int, columns of the scaled feature array.
    n_context : int, length of the embedding.
    short_window : int, candles of the short window; the receptive field is at most this.
    channels : int, channels of the body.
    kernel : int, taps of each convolution.
    hidden : int, width of the head.
    components : int, directions of the embedding that reach FiLM.
    reading : which those are: "variance", its whitened principal components, or "predictive", those
        that last and predict the coming days (see `learning.reading`).
    head : "classes" (score = p_buy - p_sell) or "regression" (score = tanh output).
    unseen : columns it does not read. Without those that say what time it is, scores follow from
        the window's own candles alone.
    """

    n_features: int
    n_context: int = EMBEDDING_SIZE
    short_window: int = SHORT_WINDOW
    channels: int = 24
    kernel: int = 3
    hidden: int = 32
    components: int = 4
    reading: Literal["variance", "predictive"] = "predictive"
    head: Literal["classes", "regression"] = "classes"
    unseen: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "unseen", tuple(self.unseen))  # JSON gives a list

    @property
    def dilations(self) -> list[int]:
        """Dilation of each convolution; see `choose_dilations`."""
        return choose_dilations(self.short_window, self.kernel)

    @property
    def receptive_field(self) -> int:
        """Candles one score depends on, at most `short_window`."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the bundle."""
        return dataclasses.asdict(self)


def choose_dilations(short_window: int, kernel: int) -> list[int]:
    """Doubling dilations whose receptive field fills the short window as far as it can.

    The receptive field is 1 + (kernel - 1) * sum(dilations), and every candle in it is seen. Raises
    RecipeError when not even one convolution fits, or the kernel has fewer than two taps.
    """
    if kernel < 2:
        raise RecipeError(f"a kernel of {kernel} sees no past: expected at least 2 taps")
    budget = (short_window - 1) // (kernel - 1)
    if budget < 1:
        raise RecipeError(
            f"a short window of {short_window} candles is too short for a kernel of {kernel}"
        )
    dilations: list[int] = []
    while sum(dilations) + 2 ** len(dilations) <= budget:
        dilations.append(2 ** len(dilations))
    rest = budget - sum(dilations)
    # A dilation wider than the receptive field before it would leave candles unseen.
    widest = 1 + (kernel - 1) * sum(dilations[:-1])
    if rest > dilations[-1] // 2 or dilations[-1] + rest > widest:
        dilations.append(rest)
    else:
        dilations[-1] += rest
    return dilations


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """How long and how fast MacroNet learns.

    Parameters
    ----------
    epochs : int, at most.
    batch_size : int, windows per step.
    learning_rate, weight_decay : float, of AdamW.
    patience : int, epochs without a better validation loss before stopping.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    patience: int = 6


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How long and how hard MicroNet learns.

    Parameters
    ----------
    epochs : int, at most; patience : epochs without a better validation loss before stopping.
    initialisations : int, networks trained from different seeds; the best on validation is kept.
    trial_epochs : int, epochs after which only the better half of them goes on, and again after as
        many more, until one is left; as many as `epochs` let each of them learn to its end.
    batch_sessions : int, sessions (days of one symbol) per step.
    learning_rate, weight_decay : of AdamW; label_smoothing in [0, 1), classes only.
    mirror : bool, mirror half of the sessions of each step.
    averaging : float in [0, 1), decay of the running average of the weights.
    confidence_penalty : >= 0, weight of the negative entropy added to the loss (Pereyra et al.
        2017, eq. 3), classes only.
    """

    epochs: int = 24
    patience: int = 4
    initialisations: int = 3
    trial_epochs: int = 1
    batch_sessions: int = 8
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    mirror: bool = True
    averaging: float = 0.998
    confidence_penalty: float = 0.0


def _default_session() -> SessionSettings:
    # Sessions are tensors: whoever wants a default one has torch anyway.
    from cppncripto_strategy.models.inputs.sessions import SessionSettings

    return SessionSettings()


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """Everything that decides what a bundle becomes, but candles and seed.

    Parameters
    ----------
    session : how inputs are made.
    use_macro : bool, False trains MicroNet under a zero embedding (the comparison "without macro").
    encoder, encoder_options, objective, objective_options : MacroNet.
    pretrain, train, label : settings of their parts.
    micro : MicroNet's shape; n_features and n_context are set from the rest.
    train_days, validate_days : lengths of the two parts, days before the retraining stamp.
    retrain_days : period of MicroNet's calendar.
    macro_retrain_days : period of MacroNet's; between, MicroNet starts from its last weights.
    retrain : "calendar", or "drift": every retrain_days the drift of the days since is judged, and
        only a drift above drift_limit is repaired, the lowest-cost repair first (see `drift`).
        Without macro there is no embedding that could drift, so the calendar applies.
    drift_limit : float, median drift ratio that calls for a repair.
    warm_epochs : int, at most this many epochs for a warm start.
    plugins : "name sha256" of the recipe's plugin files: other content, other cache keys.
    device : where the networks learn, embeddings of their days included; see `models.device`.
    """

    session: SessionSettings = field(default_factory=_default_session)
    use_macro: bool = True
    encoder: str = "tcn"
    encoder_options: dict[str, Any] = field(default_factory=dict)
    objective: str = "contrastive"
    objective_options: dict[str, Any] = field(default_factory=dict)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    label: LabelSettings = field(default_factory=LabelSettings)
    short_window: int = SHORT_WINDOW
    micro_options: dict[str, Any] = field(default_factory=dict)
    train_days: int = 300
    validate_days: int = 30
    retrain_days: int = 28
    macro_retrain_days: int = 364
    retrain: Literal["calendar", "drift"] = "calendar"
    drift_limit: float = 1.25
    warm_epochs: int = 8
    plugins: tuple[str, ...] = ()
    device: DeviceName = "cpu"

    def micro_settings(self) -> MicroNetSettings:
        """MicroNet's shape; `clock` among its options hides what says the time when False."""
        options = dict(self.micro_options)
        clock = options.pop("clock", True)
        return MicroNetSettings(
            n_features=len(self.session.names),
            n_context=EMBEDDING_SIZE,
            short_window=self.short_window,
            unseen=() if clock else self.session.table.clock,
            **options,
        )
