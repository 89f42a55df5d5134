"""Walk-forward: absolute stamps, no future in any bundle, the same bytes from the same candles."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.bundle import WEIGHTS_FILE, Bundle
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionSettings, build_sessions
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning import cache as bundle_cache
from cppncripto_strategy.models.learning import learner, retraining
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.data import micro_data
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.learning.training import IGNORED
from cppncripto_strategy.models.learning.walkforward import walk_forward
from cppncripto_strategy.models.scoring.batch import score_span
from cppncripto_strategy.models.settings import LearnSettings, PretrainSettings, TrainSettings

HOUR_MS = 3_600_000
COLUMNS = ("open", "high", "low", "close", "volume")
# Hourly candles, small networks, a handful of epochs: a bundle in a tenth of a second.
LEARN = LearnSettings(
    session=SessionSettings(interval_ms=HOUR_MS, long_window=48),
    encoder_options={"channels": 4, "stride": 6, "dilations": [1, 2]},
    pretrain=PretrainSettings(epochs=2, batch_size=16),
    train=TrainSettings(epochs=2, initialisations=2, trial_epochs=2),
    label=LabelSettings(horizon=4, options={"threshold_bps": 30.0}),
    short_window=12,
    micro_options={"channels": 4, "hidden": 4, "components": 2},
    train_days=28,
    validate_days=21,
    retrain_days=7,
    macro_retrain_days=14,
    warm_epochs=1,
)
START_MS = int(np.datetime64("2023-01-01", "ms").astype(np.int64))


@pytest.fixture(scope="module")
def grid(toy):
    return toy.grid(toy.candles(days=105))


@pytest.fixture(scope="module")
def table(grid):
    return build_sessions("X", grid, LEARN.session)


def day(number):
    """00:00 UTC of a day of the market."""
    return START_MS + number * DAY_MS


def hashes(timeline):
    return {b.info.trained_until_ms: b.model_hash for b in timeline.bundles}


def rebuilt(grid, row, change):
    """The session table of a grid whose candles from `row` on are changed, or all before it."""
    columns = {name: getattr(grid, name).copy() for name in COLUMNS}
    for values in columns.values():
        values[row] = change(values[row])
    return build_sessions("X", dataclasses.replace(grid, **columns), LEARN.session)


@pytest.mark.parametrize("every", [1, 7, 28])
def test_stamps_are_absolute_mondays_whatever_the_range(every):
    """A calendar that starts where the range starts: other weeks, other bundles."""
    stamps = calendar(day(100), day(200), every)
    assert stamps[0] <= day(100) < stamps[0] + every * DAY_MS
    assert stamps[-1] < day(200) <= stamps[-1] + every * DAY_MS
    assert set(np.diff(stamps)) == {every * DAY_MS}
    for start, end in ((101, 180), (107, 108), (150, 350)):
        other = calendar(day(start), day(end), every)
        both = [s for s in stamps if other[0] <= s <= other[-1]]
        assert both == [s for s in other if stamps[0] <= s <= stamps[-1]]
    if every % 7 == 0:
        assert all(np.datetime64(s, "ms").item().weekday() == 0 for s in stamps)
    assert calendar(day(1), day(1), every) == calendar(day(1), day(1) + 1, every)


@pytest.mark.parametrize("use_macro", [True, False])
def test_another_time_range_finds_the_same_bundles_byte_for_byte(table, use_macro):
    """Warm starts that depend on where somebody chose to begin trading."""
    settings = dataclasses.replace(LEARN, use_macro=use_macro)
    whole = walk_forward([table], day(72), day(103), settings, seed=3)
    assert len(whole.bundles) >= 4
    reference = hashes(whole)
    for start, end in ((75, 90), (84, 103), (90, 92), (100, 103)):
        part = walk_forward([table], day(start), day(end), settings, seed=3)
        found = hashes(part)
        assert list(found) == calendar(day(start), day(end), settings.retrain_days)
        assert found == {stamp: reference[stamp] for stamp in found}


def test_candles_too_short_for_the_warm_starts_begin_afresh_and_say_so(grid, caplog):
    """A run refused, or silently different, because history begins after MacroNet's stamp."""
    stamps = calendar(day(0), day(200), LEARN.retrain_days)
    macro_stamps = set(calendar(day(0), day(200), LEARN.macro_retrain_days))
    warm = next(s for s in stamps if s not in macro_stamps and s >= day(80))
    learning = (LEARN.train_days + LEARN.validate_days) * DAY_MS
    first = grid.row_of(warm - learning) - LEARN.session.warmup
    late = build_sessions("X", grid.rows(first, len(grid)), LEARN.session)
    with caplog.at_level("INFO"):
        timeline = walk_forward([late], warm, warm + DAY_MS, LEARN, seed=3)
    assert [b.info.trained_until_ms for b in timeline.bundles] == [warm]
    assert len(timeline.bundles[0].info.curves["micro"]) == LEARN.train.initialisations
    assert "candles begin too late" in caplog.text


@pytest.mark.parametrize("head", ["classes", "regression"])
def test_nothing_after_trained_until_influences_a_bundle(grid, table, head):
    """Scalers, labels, standardiser, quantiles or fingerprint made with later candles."""
    until = calendar(day(90), day(91), 7)[0]
    settings = dataclasses.replace(LEARN, micro_options={**LEARN.micro_options, "head": head})
    row = grid.row_of(until)  # opens at the stamp: the first candle that closes after it
    learned = learn_bundle([table], until, settings, seed=0)
    for change in (lambda v: v * 3, lambda v: v[::-1], lambda v: v * np.nan):
        other = rebuilt(grid, slice(row, None), change)
        assert learn_bundle([other], until, settings, seed=0).to_bytes() == learned.to_bytes()
    cut = build_sessions("X", grid.rows(0, row), LEARN.session)
    assert learn_bundle([cut], until, settings, seed=0).to_bytes() == learned.to_bytes()
    last = rebuilt(grid, slice(row - 1, None), lambda v: v * 1.01)
    assert learn_bundle([last], until, settings, seed=0).to_bytes() != learned.to_bytes()


def test_candles_before_the_training_span_change_nothing(grid, table):
    """A bundle that depends on how much older history happens to be in the store."""
    until = calendar(day(100), day(101), 7)[0]
    learning = (LEARN.train_days + LEARN.validate_days) * DAY_MS
    row = grid.row_of(until - learning) - LEARN.session.warmup
    assert row > 24
    for head in ("classes", "regression"):
        settings = dataclasses.replace(LEARN, micro_options={**LEARN.micro_options, "head": head})
        learned = learn_bundle([table], until, settings, seed=0).to_bytes()
        wild = rebuilt(grid, slice(0, row), lambda v: v * 5)
        assert learn_bundle([wild], until, settings, seed=0).to_bytes() == learned
        late = build_sessions("X", grid.rows(row, len(grid)), LEARN.session)
        assert learn_bundle([late], until, settings, seed=0).to_bytes() == learned


@pytest.mark.parametrize("kind", ["fixed", "barrier", "trade"])
def test_labels_are_purged_at_the_split_and_features_embargoed_after_it(
    grid, table, kind, monkeypatch
):
    """A training label that reads the validation span, a validation window that reads training."""
    parts = []
    honest = learner.train_micronet

    def spy(train, validation, *rest, **more):
        parts.extend((train, validation))
        return honest(train, validation, *rest, **more)

    monkeypatch.setattr(learner, "train_micronet", spy)
    label = dataclasses.replace(LEARN.label, kind=kind, options={})
    settings = dataclasses.replace(LEARN, label=label)
    until = calendar(day(90), day(91), 7)[0]
    split = until - settings.validate_days * DAY_MS
    start = split - settings.train_days * DAY_MS
    learn_bundle([table], until, settings, seed=0)
    ahead = label.horizon + (kind == "trade")  # enters one candle later
    reach_rows = settings.session.table.memory + settings.micro_settings().receptive_field
    reach_back = reach_rows * HOUR_MS
    spans = ((start, split, start), (split, until, split + reach_back))
    for data, (first, end, earliest) in zip(parts, spans, strict=True):
        sessions = SessionSet.between([table], first, end).start_ms()
        close = sessions[:, None] + np.arange(24) * HOUR_MS
        known = (close >= earliest) & (close + ahead * HOUR_MS <= end)
        close = close[known.any(axis=1)]  # a session without a label is left out
        labelled = data.target.numpy() != IGNORED
        closes = close[labelled]
        assert closes.max() + ahead * HOUR_MS == end
        assert closes.min() == earliest
        assert labelled.sum() == (closes.max() - closes.min()) // HOUR_MS + 1
        assert np.isfinite(data.value.numpy()[labelled]).all()
        assert np.isnan(data.value.numpy()[~labelled]).all()


def test_gap_leaves_its_candles_and_those_that_look_into_it_without_label(toy):
    """A label computed across an outage."""
    hole = list(range(30 * 24 + 5, 30 * 24 + 9))
    grid = toy.grid(toy.candles(days=35, missing=hole))
    table = build_sessions("X", grid, LEARN.session)
    sessions = SessionSet.between([table], day(29), day(32))
    labels = [LEARN.label.compute(grid)]
    data = micro_data(sessions, labels, None, 5, 0.01, 0, day(35))
    close = sessions.start_ms()[:, None] + np.arange(24) * HOUR_MS
    unlabelled = grid.row_of(close[data.target.numpy() == IGNORED] - HOUR_MS)
    assert unlabelled.tolist() == list(range(hole[0] - LEARN.label.horizon, hole[-1] + 1))
    assert not data.context.any()


def test_a_session_without_a_label_takes_no_memory(table, grid):
    """Inputs, most of a training's memory, made for days that nothing is learned from."""
    sessions = SessionSet.between([table], day(20), day(24))
    label, contexts = LEARN.label.compute(grid), torch.arange(4.0)[:, None].repeat(1, 128)
    asked = (sessions, [label], (contexts, -contexts), 5, 0.01, day(21), day(24))
    some, every = micro_data(*asked), micro_data(*asked, whole=True)
    assert [len(some), len(every)] == [3, 4]
    for other in (every.with_labels(), every.take(torch.tensor([1, 2, 3]))):
        for name in ("inputs", "context", "mirror_context", "target", "value", "forward_return"):
            assert torch.equal(
                torch.nan_to_num(getattr(some, name).double()),
                torch.nan_to_num(getattr(other, name).double()),
            )
    assert some.context[:, 0].tolist() == [1.0, 2.0, 3.0]
    none = micro_data(sessions, [label], None, 5, 0.01, day(50), day(60))
    assert len(none) == 4
    assert none.labelled == 0


def test_targets_follow_the_label(table, grid):
    """Buy and sell exchanged between label and class."""
    sessions = SessionSet.between([table], day(20), day(24))
    label = LEARN.label.compute(grid)
    data = micro_data(sessions, [label], None, 5, 0.01, 0, day(60))
    close = sessions.start_ms()[:, None] + np.arange(24) * HOUR_MS
    rows = grid.row_of(close - HOUR_MS)
    expected = grid.close[rows + LEARN.label.horizon] / grid.close[rows] - 1
    bps = LEARN.label.options["threshold_bps"] * 1e-4
    classes = np.where(expected > bps, 2, np.where(expected < -bps, 0, 1))
    np.testing.assert_array_equal(data.target.numpy(), classes)
    np.testing.assert_allclose(data.value.numpy(), np.tanh(expected / 0.01), atol=1e-6)
    assert set(np.unique(classes)) == {0, 1, 2}


def test_same_seed_same_bytes_other_seed_other_bytes(table):
    """Results nobody can reproduce; a seed that reaches only one of the two networks."""
    until = calendar(day(80), day(81), 7)[0]
    torch.manual_seed(1)
    first = learn_bundle([table], until, LEARN, seed=5)
    torch.manual_seed(2)
    again = learn_bundle([table], until, LEARN, seed=5)
    other = learn_bundle([table], until, LEARN, seed=6)
    assert first.to_bytes() == again.to_bytes()
    for part in ("macro", "micro"):
        weights = [
            torch.cat([w.flatten() for w in getattr(b, part).state_dict().values()])
            for b in (first, other)
        ]
        assert not torch.equal(*weights)


def test_warm_start_keeps_macronet_and_moves_micronet(table):
    """MacroNet retrained off its calendar, or MicroNet never retrained."""
    timeline = walk_forward([table], day(72), day(95), LEARN, seed=0)
    macro_stamps = set(calendar(day(72), day(95), LEARN.macro_retrain_days))
    pairs = list(zip(timeline.bundles, timeline.bundles[1:], strict=False))
    kept = [b.info.trained_until_ms not in macro_stamps for _, b in pairs]
    assert True in kept
    assert False in kept
    for (before, after), same in zip(pairs, kept, strict=True):
        macro = [b.macro.encoder.output.weight for b in (before, after)]
        assert torch.equal(*macro) == same
        assert not torch.equal(before.micro.output.weight, after.micro.output.weight)
        initialisations = 1 if same else LEARN.train.initialisations
        assert len(after.info.curves["micro"]) == initialisations
        epochs = LEARN.warm_epochs if same else LEARN.train.epochs
        assert len(after.info.curves["micro"][0]["train"]) == epochs


def test_without_macro_context_is_zero_and_score_is_score_zero(grid, table):
    """The comparison arm profiting from an embedding."""
    settings = dataclasses.replace(LEARN, use_macro=False)
    timeline = walk_forward([table], day(95), day(96), settings, seed=0)
    (bundle,) = timeline.bundles
    assert bundle.macro is None
    assert bundle.info.encoder is None
    assert not bundle.bank.any()
    assert not bundle.micro.whiten.any()
    span = score_span("X", grid, timeline)
    known = np.isfinite(span.score)
    assert known.sum() > 100
    np.testing.assert_array_equal(span.score[known], span.score_zero[known])


def test_bundle_describes_itself(table):
    """A manifest that cannot be checked: wrong span, wrong label, no quantiles."""
    until = calendar(day(80), day(81), 7)[0]
    bundle = learn_bundle([table], until, LEARN, seed=0)
    info = bundle.info
    assert info.trained_until_ms == until
    learning = (LEARN.train_days + LEARN.validate_days) * DAY_MS
    assert info.trained_from_ms == until - learning - LEARN.session.warmup * HOUR_MS
    assert info.symbols == ("X",)
    assert info.label == LEARN.label.to_json()
    assert info.validation["sessions"] == LEARN.validate_days
    assert len(bundle.bank_ms) == LEARN.train_days + LEARN.validate_days
    assert bundle.bank_ms[-1] == until - DAY_MS
    # In ascending order the threshold would forget the lowest first; any stretch must be spread.
    for stretch in (bundle.score_seed[:100], bundle.score_seed[-100:]):
        middle = np.median(stretch)
        below, through = (bundle.score_seed < middle).mean(), (bundle.score_seed <= middle).mean()
        assert below - 0.05 < 0.5 < through + 0.05
    assert np.abs(bundle.score_seed).max() <= 1


class Interrupted(Exception):
    pass


def cached_run(table, cache, seed=1):
    return hashes(walk_forward([table], day(72), day(95), LEARN, seed=seed, cache=cache))


def test_interrupted_run_goes_on_to_the_same_bytes(table, tmp_path, monkeypatch):
    """A warm start from a reloaded bundle that differs from one kept in memory."""
    reference = hashes(walk_forward([table], day(72), day(95), LEARN, seed=1))
    honest, trained = retraining.learn_bundle, []

    def learn(tables, until_ms, *rest):
        if len(trained) == 2:
            raise Interrupted
        trained.append(until_ms)
        return honest(tables, until_ms, *rest)

    monkeypatch.setattr(retraining, "learn_bundle", learn)
    with pytest.raises(Interrupted):
        cached_run(table, tmp_path)
    assert len(list(tmp_path.glob("*-macro/*"))) == 2
    first = list(trained)
    monkeypatch.setattr(retraining, "learn_bundle", lambda *a: trained.append(a[1]) or honest(*a))
    assert cached_run(table, tmp_path) == reference
    assert len(trained) == len(set(trained))  # none was trained twice
    assert trained[:2] == first
    trained.clear()
    assert cached_run(table, tmp_path) == reference
    assert trained == []


def test_damaged_cache_entry_is_set_aside_and_trained_again(table, tmp_path, caplog):
    """A run that stops at a torn file, or trades a damaged network; twice, too."""
    reference = cached_run(table, tmp_path)
    entry = sorted(path for path in tmp_path.glob("*-macro/*") if not path.name.startswith("."))[1]
    for times in (1, 2):
        (entry / WEIGHTS_FILE).write_bytes(b"torn")
        assert cached_run(table, tmp_path) == reference
        assert "set aside" in caplog.text
        assert Bundle.load(entry).model_hash in reference.values()
        assert (
            len([p for p in tmp_path.glob("*-macro/*") if p.name.startswith(".damaged-")]) == times
        )


def test_bundle_that_another_one_is_training_is_waited_for(table, tmp_path, monkeypatch):
    """The same training twice at once, and the second one's failure to put it where one stands."""
    trained, waits, texts = [], threading.Event(), []
    train = retraining.learn_bundle

    def slowly(*arguments):
        trained.append(threading.get_ident())
        assert waits.wait(30)
        return train(*arguments)

    def heard(done, total, text):
        texts.append(text)
        if "waiting for" in text:  # its holder may not have signed yet
            waits.set()

    def run():
        return hashes(
            walk_forward([table], day(72), day(73), LEARN, 1, cache=tmp_path, progress=heard)
        )

    monkeypatch.setattr(retraining, "learn_bundle", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = (job.result(60) for job in [pool.submit(run), pool.submit(run)])
    assert first == second
    assert len(trained) == len(list(tmp_path.glob("*/*/bundle.json")))
    assert len(set(trained)) == 1
    assert not list(tmp_path.rglob("*.lock"))


def test_cache_is_not_shared_between_seeds_settings_or_candles(grid, table, tmp_path):
    """A stale bundle under a key that forgot something."""
    stamp = calendar(day(95), day(96), 7)[0]
    macro = calendar(stamp, stamp, LEARN.macro_retrain_days)[0]
    changed = rebuilt(
        grid, slice(grid.row_of(macro) - 50, grid.row_of(macro) - 49), lambda v: v * 1.01
    )
    other = dataclasses.replace(LEARN, train=dataclasses.replace(LEARN.train, weight_decay=0.02))
    found = set()
    for tables, settings, seed in (
        ([table], LEARN, 0),
        ([table], LEARN, 1),
        ([table], other, 0),
        ([changed], LEARN, 0),
    ):
        timeline = walk_forward(tables, macro, macro + DAY_MS, settings, seed, tmp_path)
        found.add(timeline.bundles[-1].model_hash)
    assert len(found) == 4
    assert len(list(tmp_path.glob("*-macro/*"))) == 4


def test_code_is_part_of_the_cache_key(table, tmp_path, monkeypatch):
    """A mended training loop that keeps handing out the old networks."""
    stamp = calendar(day(95), day(96), 7)[0]
    keys = set()
    for digest in ("one", "two"):
        monkeypatch.setattr(bundle_cache, "closure_digest", lambda *_, digest=digest: digest)
        keys.add(bundle_cache.cache_key([table], stamp, LEARN, 0, None))
    assert len(keys) == 2


def test_too_few_days_say_how_many_and_what_to_do(table):
    """A crash in torch, or a network trained on three days."""
    with pytest.raises(TrainingError, match=r"too few days.*lower train_days and validate_days"):
        walk_forward([table], day(20), day(21), LEARN, seed=0)


def test_progress_ends_at_its_total_and_never_runs_back(table):
    """A bar that jumps backwards at each bundle."""
    seen = []
    walk_forward([table], day(84), day(95), LEARN, 0, progress=lambda *a: seen.append(a))
    shares = [done / total for done, total, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("use_macro", [True, False])
def test_each_network_learns_where_its_settings_say(table, monkeypatch, use_macro):
    """A network that learns on the processor, whatever the recipe says, while it is paid for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = dataclasses.replace(LEARN, use_macro=use_macro, device="cuda")
    with pytest.raises(RecipeError, match="no CUDA device"):
        learn_bundle([table], day(70), asked, seed=0)
    left = [
        learn_bundle([table], day(70), dataclasses.replace(LEARN, use_macro=use_macro, device=d), 0)
        for d in ("cpu", "auto")
    ]
    assert left[0].model_hash == left[1].model_hash
