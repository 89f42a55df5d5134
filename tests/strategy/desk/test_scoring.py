"""Scores on demand: those of the live path, bounded, and of nobody's past."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cppncripto_strategy.desk.listing import Listing
from cppncripto_strategy.desk.scoring import Scorer
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS

pytest.importorskip("torch")

LAST = 5  # hours of the last day that are sent


@pytest.fixture(scope="module")
def networks(tmp_path_factory, toy, desk):
    """(folder of results, candles, timeline): a run with two bundles of random networks."""
    root = tmp_path_factory.mktemp("networks")
    candles = toy.candles(days=24)
    timeline = toy.timeline(toy.grid(candles), toy.settings, sessions=(3, 5))
    run = root / "tiny" / "20240301T000000Z"
    desk.make_run(run, "tiny", 1, 1.0)
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(f"{recipe}\n[threshold]\nwindow = 400\nquantile = 0.2\n")
    timeline.save(run / "bundles")
    return root, candles, timeline


def body(candles, **changes) -> dict:
    """A request's candles as it sends them."""
    names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
    columns = {name: getattr(candles, name).tolist() for name in names}
    columns["open_time_ms"] = candles.open_time.tolist()
    return {"symbol": "X", "candles": {**columns, **changes}}


def url(root) -> str:
    return f"/api/v1/runs/{Listing(root).of('run')[0].id}/score"


def upto(candles, hours: int = LAST):
    """Candles until some hours into the last day."""
    midnight = int(candles.open_time[-1]) // DAY_MS * DAY_MS
    return candles.between(0, midnight + hours * HOUR_MS)


def test_scores_are_those_of_the_live_path(networks, desk_of):
    """A score of the day before, of another bundle, or one that saw the future."""
    from cppncripto_strategy.models.scoring.macro_stream import MacroStream
    from cppncripto_strategy.models.scoring.round_scorer import ScoreStream
    from cppncripto_strategy.models.scoring.threshold import ScoreThreshold, ThresholdSettings

    root, every, timeline = networks
    candles = upto(every)
    found = desk_of(root).post(url(root), json=body(candles))
    assert found.status_code == 200, found.text
    answer = found.json()
    macro = MacroStream(timeline)
    stream, threshold = ScoreStream(macro), ScoreThreshold(ThresholdSettings(400, 0.2))
    active = -1
    for place in range(len(candles)):
        names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
        row = np.array([getattr(candles, name)[place] for name in names])
        macro.push(int(candles.open_time[place]), row)
        scores = stream.update()
        if macro.state is not None and macro.state.bundle != active:
            active = macro.state.bundle
            threshold.seed(timeline.bundles[active].score_seed)
        close_ms = int(candles.open_time[place]) + HOUR_MS
        upper, lower = threshold.update(scores[0], close_ms)
    assert answer["score"] == pytest.approx(scores[0], abs=1e-4)
    assert answer["p_buy"] == pytest.approx(scores[1], abs=1e-4)
    assert (answer["upper"], answer["lower"]) == pytest.approx((upper, lower), abs=1e-4)
    assert answer["bundle"] == timeline.bundles[-1].model_hash
    assert answer["close_time"]["ms"] == close_ms
    assert answer["embedding_age_s"] == LAST * 3_600


def test_nobodys_past_is_scored(networks, desk_of):
    """A network that is asked about the days it learned from."""
    root, candles, timeline = networks
    early = candles.between(0, timeline.first_session_ms - HOUR_MS)
    answer = desk_of(root).post(url(root), json=body(early))
    assert answer.status_code == 422
    assert "trained until" in answer.json()["detail"] or "too few" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"high": [0.0] * 10}, "has shape"), ({"close": [-1.0]}, "greater than or equal"),
        ({"open": ["x"]}, "valid number"), ({"open_time_ms": [0, 2**42]}, ""),
        ({"other": [1]}, "not permitted"), ({"volume": [1e400]}, ""), ({"open": []}, "at least 1"),
        ({"open_time_ms": [2**43]}, "less than"), ({"open": [1.0] * 20_001}, "at most 20000"),
    ],
)  # fmt: skip
def test_what_are_no_candles_is_refused(networks, desk_of, changes, said):
    """Two candles a century apart, laid on a grid of billions; a score of nonsense."""
    root, candles, _ = networks
    sent = json.dumps(body(upto(candles), **changes)).replace("Infinity", "1e999")
    headers = {"content-type": "application/json"}
    answer = desk_of(root).post(url(root), content=sent, headers=headers)
    assert answer.status_code == 422, answer.text[:200]
    assert said in answer.json()["detail"]


def test_a_century_is_no_span(networks, desk_of):
    """A grid of billions of rows for two candles."""
    root, candles, _ = networks
    two = candles[np.array([0, 1])]
    sent = body(two, open_time_ms=[0, 2**42 // HOUR_MS * HOUR_MS])
    answer = desk_of(root).post(url(root), json=sent)
    assert "span more than" in answer.json()["detail"]


def test_scores_are_rationed(networks, desk_of, monkeypatch):
    """A bot in a loop that leaves no processor to the trader."""
    root, candles, _ = networks
    client = desk_of(root)
    monkeypatch.setattr(Scorer, "score", lambda *_: 1 / 0)
    statuses = [client.post(url(root), json=body(candles[:2])).status_code for _ in range(12)]
    assert statuses[0] == 500
    assert 429 in statuses


def test_candles_may_be_larger_than_forms_and_not_without_bound(networks, desk_of):
    """A form of megabytes, or a month of candles that is refused."""
    root, *_ = networks
    client = desk_of(root)
    headers = {"content-type": "application/json"}
    assert client.post(url(root), content=b" " * 300_000, headers=headers).status_code == 422
    assert client.post(url(root), content=b" " * 5_000_000, headers=headers).status_code == 413
    assert client.post("/logout", content=b" " * 300_000, headers=headers).status_code == 413


def test_plugins_of_a_recipe_are_not_run(networks, desk_of, tmp_path):
    """A recipe from elsewhere whose code runs on the desk."""
    root, candles, _ = networks
    ran, plugin = tmp_path / "ran", tmp_path / "plugin.py"
    plugin.write_text(f"open({str(ran)!r}, 'w')")
    path = Listing(root).of("run")[0].path / "recipe.toml"
    before = path.read_text()
    path.write_text(f"plugins = [{json.dumps(str(plugin))}]\n{before}")
    try:
        assert desk_of(root).post(url(root), json=body(upto(candles))).status_code == 200
    finally:
        path.write_text(before)
    assert not ran.exists()


def test_a_run_without_networks_says_so(desk_of, results):
    """A 500 where bundles were deleted to save space."""
    client = desk_of(results)
    answer = client.post(url(results), json=body(_two()))
    assert answer.status_code == 422
    assert "no bundle" in answer.json()["detail"]
    assert str(results) not in answer.text


def _two():
    from cppncripto_strategy.feeds.candles import Candles

    prices = {name: [1.0, 1.0] for name in ("open", "high", "low", "close", "volume")}
    return Candles.from_columns(open_time=[0, HOUR_MS], taker_buy_volume=[0.5, 0.5], **prices)
