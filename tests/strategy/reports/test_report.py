"""The report page, the tearsheet, the picture and the terminal summary of made-up runs."""

from __future__ import annotations

import dataclasses
import re
import warnings
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cppncripto_strategy.evaluation.account import Account, buy_and_hold
from cppncripto_strategy.evaluation.metrics import run_metrics
from cppncripto_strategy.evaluation.returns import sharpe_ratio
from cppncripto_strategy.evaluation.signals import Yardstick
from cppncripto_strategy.reports import charts, pages, report
from cppncripto_strategy.results import RunResult, empty_table, to_plain

DAY = 86_400_000
CANDLE = 3_600_000
START = 1_704_067_200_000  # 2024-01-01 00:00 UTC
PAGE_LIMIT_BYTES = 8_000_000


def signals_of(symbol, days, seed):
    rng = np.random.default_rng(seed)
    count = days * 24
    stamps = START + CANDLE * np.arange(count, dtype=np.int64)
    score = np.tanh(rng.normal(0, 0.4, count))
    p_buy = (1 + score) / 3
    return pd.DataFrame(
        {
            "symbol": symbol,
            "close_time_ms": stamps,
            "close": 100 * np.exp(np.cumsum(rng.normal(0, 0.005, count))),
            "score": score,
            "p_buy": p_buy,
            "p_sell": np.clip(p_buy - score, 0, 1),
            "score_zero": np.tanh(rng.normal(0, 0.4, count)),
            "upper": 0.4,
            "lower": -0.4,
            "signal": np.where(score > 0.4, 1, np.where(score < -0.4, -1, 0)).astype(np.int64),
            "drift": np.repeat(rng.random(days), 24),
            "age_ms": stamps % DAY,
        }
    )


def fills_of(signals):
    some = signals[signals["signal"] != 0].head(40)
    count = len(some)
    table = pd.DataFrame(
        {
            "symbol": some["symbol"],
            "created_ms": some["close_time_ms"],
            "executed_ms": some["close_time_ms"] + CANDLE,
            "side": np.where(some["signal"] > 0, "buy", "sell"),
            "quantity": 1.0,
            "price": some["close"],
            "notional": some["close"],
            "fee": 0.1,
            "reference_price": some["close"] * 0.9999,
            "reason": "signal",
            "status": "filled",
            "detail": "",
        }
    ).reset_index(drop=True)
    table.loc[count - 1, ["status", "detail"]] = ["refused", "notional below <b>the minimum</b>"]
    return table


def made_run(days=20, symbols=("BTCUSDT", "ETHUSDT"), without_macro=True):
    signals = pd.concat([signals_of(s, days, k) for k, s in enumerate(symbols)], ignore_index=True)
    stamps = np.unique(signals["close_time_ms"].to_numpy())
    rng = np.random.default_rng(9)
    equity = pd.DataFrame(
        {
            "close_time_ms": stamps,
            "equity": 10_000 * np.exp(np.cumsum(rng.normal(-1e-4, 0.002, len(stamps)))),
            "cash": 5_000.0,
            "exposure": 0.5,
        }
    )
    other = equity.assign(equity=equity["equity"].to_numpy()[::-1]) if without_macro else None
    fills, trades = fills_of(signals), empty_table("trades")
    benchmark = buy_and_hold(signals, 10_000.0)
    found = run_metrics(
        signals,
        Account(equity, fills, trades),
        benchmark,
        Yardstick(6, CANDLE, resamples=60),
        None if other is None else Account(other),
    )
    found["statistics"] = {"trials": 17, "probabilistic_sharpe": 0.91, "deflated_sharpe": 0.42}
    return RunResult(
        recipe={"name": "made", "micro": {"window": 60}},
        manifest={"commit": "abc123", "seed": 7, "versions": {"torch": "2.9"}, "trials": 4},
        metrics=to_plain(found),
        signals=signals,
        fills=fills,
        trades=trades,
        equity=equity,
        benchmark_equity=benchmark,
        equity_without_macro=other,
        gaps=[
            {
                "symbol": "BTCUSDT",
                "start_ms": START + 2 * DAY,
                "end_ms": START + 2 * DAY + 16 * 300_000,
                "candles": 16,
            }
        ],
        bundles=[
            {
                "hash": "b0" * 10,
                "trained_until_ms": START,
                "valid_from_ms": START,
                "validation_loss": 1.0123,
            }
        ],
        planted={"ceiling_hit_ratio": 0.655, "setups": 2900},
    )


class Requests(HTMLParser):
    """Collects whatever a browser would fetch while opening a page."""

    FETCHING = ("src", "srcset", "data", "poster", "background")

    def __init__(self):
        super().__init__()
        self.found = []
        self.style = False

    def handle_starttag(self, tag, attrs):
        self.style = tag == "style"
        for name, value in attrs:
            fetches = name in self.FETCHING or (tag == "link" and name == "href")
            if fetches and re.match(r"(https?:)?//", value or ""):
                self.found.append(f"{tag} {name}={value}")
            if name == "style":
                self.check_style(value or "")

    def handle_data(self, data):
        if self.style:
            self.check_style(data)

    def check_style(self, text):
        self.found += re.findall(r"@import[^;]*|url\(\s*['\"]?(?:https?:)?//[^)]*\)", text)


def requests_of(path):
    parser = Requests()
    parser.feed(path.read_text("utf-8"))
    return parser.found


@pytest.fixture(scope="module")
def run():
    return made_run()


@pytest.fixture
def no_warnings(capfd, caplog):
    """Fails when a warning is raised, logged or printed meanwhile."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        yield
    assert [str(item.message) for item in raised] == []
    logged = caplog.get_records("call")
    assert [record.getMessage() for record in logged if record.levelno >= 30] == []
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_requests_finds_what_a_browser_would_fetch(tmp_path):
    """Dies here: an offline check that finds nothing because it looks at nothing."""
    page = tmp_path / "page.html"
    page.write_text(
        '<link href="//fonts.example/a.css"><script src="https://cdn.example/p.js"></script>'
        "<style>@import 'x.css'; a{background:url(http://e.example/i.png)}</style>"
        '<a href="https://fine.example">a link is not a request</a>'
    )
    assert len(requests_of(page)) == 4


def test_report_is_one_small_page_that_fetches_nothing(run, tmp_path, no_warnings):
    """Dies here: a chart library from a network, or a point for every candle."""
    path = tmp_path / "report.html"
    report.write_report(run, path)
    assert requests_of(path) == []
    assert path.stat().st_size < PAGE_LIMIT_BYTES


def test_report_says_the_verdict_and_shows_every_part(run, tmp_path):
    """Dies here: a section lost, or the verdict hidden below the charts."""
    path = tmp_path / "report.html"
    report.write_report(run, path)
    page = path.read_text("utf-8")
    body = page[page.index("<body>") :]
    assert run.metrics["verdict"]["headline"] in body[:400]
    for part in (
        "What is planted",
        "65.50 %",
        "The accounts",
        "Without macro",
        "Buy and hold",
        "How good the signals were",
        "How much may be luck",
        "42.00 %",
        "Break-even",
        "BTCUSDT: one week of scores and trades",
        "ETHUSDT: one week of scores and trades",
        "How far macro moved the score",
        "Calibration",
        "Embedding drift",
        "Orders not filled",
        "2024-01-03 00:00",
        "2024-01-03 01:20",
        "Bundles in force",
        "1.0123",
        "abc123",
        "window = 60",
    ):
        assert part in body, part


def test_report_escapes_what_comes_from_outside(run, tmp_path):
    """Dies here: an exchange's message or a recipe's name that runs as a script."""
    path = tmp_path / "report.html"
    report.write_report(
        dataclasses.replace(run, recipe={"name": "<script>alert(1)</script>"}), path
    )
    page = path.read_text("utf-8")
    assert "<script>alert" not in page
    assert "<b>the minimum</b>" not in page
    assert "&lt;b&gt;the minimum&lt;/b&gt;" in page


def test_report_of_a_run_without_macro_does_not_claim_it(tmp_path):
    """Dies here: "with macro" over the account of a recipe that switched macro off."""
    run = made_run(days=6, without_macro=False)
    bare = dataclasses.replace(run, recipe={"name": "bare", "macro": {"enabled": False}})
    report.write_report(bare, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Strategy (no macro)" in page
    assert "With macro" not in page


def test_report_of_a_run_that_did_nothing_is_still_a_page(tmp_path, no_warnings):
    """Dies here: a crash on no fill, no gap, no bundle, no second arm, unknown scores."""
    base = made_run(days=3, symbols=("BTCUSDT",), without_macro=False)
    signals = base.signals.assign(
        signal=0, score=np.nan, score_zero=np.nan, p_buy=np.nan, p_sell=np.nan, drift=np.nan
    )
    fills = empty_table("fills")
    found = run_metrics(
        signals,
        Account(base.equity.assign(equity=1.0), fills, base.trades),
        base.benchmark_equity,
        Yardstick(6, CANDLE, resamples=20),
    )
    idle = dataclasses.replace(
        base,
        signals=signals,
        fills=fills,
        metrics=to_plain(found),
        gaps=[],
        bundles=[],
        planted=None,
    )
    path = tmp_path / "report.html"
    report.write_report(idle, path)
    page = path.read_text("utf-8")
    assert "No trade was made" in page
    assert "Without macro" not in page
    report.save_picture(tmp_path / "picture.png", idle)


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=400))
def test_thinned_series_keeps_its_ends_and_extremes(values):
    """Dies here: a drawdown drawn shallower than it was, because every tenth point was taken."""
    y = np.array(values)
    x = np.arange(len(y), dtype=np.int64)
    xs, ys = charts.thin(x, y, points=20)
    assert len(xs) <= 24
    np.testing.assert_array_equal(ys, y[xs])
    assert (xs[0], xs[-1]) == (0, len(y) - 1)
    assert np.all(np.diff(xs) > 0)
    if not np.isnan(y).all():
        assert (np.nanmin(ys), np.nanmax(ys)) == (np.nanmin(y), np.nanmax(y))


def daily(days, seed, mean=0.0, first=None):
    values = np.random.default_rng(seed).normal(mean, 0.02, days)
    if first is not None:
        values[0] = first
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=days), name="return")


def table_row(path, name):
    """The cells of the tearsheet's row that begins with `name`."""
    page = path.read_text("utf-8")
    row = next(r for r in re.findall(r"<tr>(.*?)</tr>", page, re.S) if f"<td>{name}" in r)
    return [re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td>(.*?)</td>", row, re.S)]


def test_tearsheet_is_quiet_offline_and_agrees_with_our_metrics(tmp_path, no_warnings):
    """Dies here: warnings on the terminal, an icon from a server, 252 days, swapped columns."""
    returns, benchmark = daily(120, 1, 0.003), daily(120, 2)
    path = tmp_path / "tearsheet.html"
    assert report.write_tearsheet(returns, benchmark, path, "A run")
    assert requests_of(path) == []
    assert [item.name for item in tmp_path.iterdir()] == ["tearsheet.html"]
    assert "Benchmark: BUY AND HOLD" in path.read_text("utf-8")
    _, held, ours = table_row(path, "Sharpe")
    assert float(ours) == pytest.approx(sharpe_ratio(returns.to_numpy()), abs=0.006)
    assert float(held) == pytest.approx(sharpe_ratio(benchmark.to_numpy()), abs=0.006)


def test_tearsheet_of_a_run_that_falls_from_its_first_day_shows_its_drawdown(tmp_path):
    """Dies here: QuantStats' blank drawdown for an account that was never above its start."""
    returns = daily(40, 3, -0.02, first=-0.05)
    path = tmp_path / "tearsheet.html"
    report.write_tearsheet(returns, daily(40, 4), path, "A loser")
    equity = np.cumprod(np.r_[1.0, 1 + returns.to_numpy()])
    deepest = 100 * float((1 - equity / np.maximum.accumulate(equity)).max())
    shown = -float(table_row(path, "Max Drawdown")[2].rstrip("%"))
    assert shown == pytest.approx(deepest, abs=0.01)


@pytest.mark.parametrize(("days", "panels"), [(120, 0), (300, 4)])
def test_tearsheet_has_rolling_charts_where_there_is_half_a_year_to_roll(tmp_path, days, panels):
    """Four empty frames, which look like a fault, or full ones thrown away with them."""
    path = tmp_path / "tearsheet.html"
    assert report.write_tearsheet(daily(days, 5), daily(days, 6), path, "A run")
    html = path.read_text("utf-8")
    assert html.count('<div id="rolling_') == panels
    assert ("too short for them" in html) == (panels == 0)
    assert all(f'<div id="{kept}">' in html for kept in ("daily_returns", "dd_periods", "dd_plot"))


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (daily(3, 1), "There are 3 days"),
        (daily(0, 1), "There are 0 days"),
        (daily(30, 1) * 0, "The account never moved"),
        (daily(30, 1) * 0 + 0.001, "The account never moved"),
    ],
)
def test_tearsheet_of_short_or_flat_returns_is_a_page_that_says_why(
    returns, reason, tmp_path, no_warnings
):
    """Dies here: a crash, or ratios of nothing, after a run of a few days or without a trade."""
    path = tmp_path / "tearsheet.html"
    benchmark = daily(len(returns), 2)
    assert not report.write_tearsheet(returns, benchmark, path, "Short")
    page = path.read_text("utf-8")
    assert reason in page
    assert requests_of(path) == []


def test_tearsheet_survives_a_failure_inside_quantstats(tmp_path, monkeypatch, caplog):
    """Dies here: a finished backtest lost because a chart could not be drawn."""
    import quantstats

    def broken(*_, **__):
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(quantstats.reports, "html", broken)
    path = tmp_path / "tearsheet.html"
    assert not report.write_tearsheet(daily(30, 1), daily(30, 2), path, "Broken")
    assert "could not draw these returns (inside)" in path.read_text("utf-8")
    assert "could not draw" in caplog.text


def test_picture_is_a_png_of_readable_size(run, tmp_path, no_warnings):
    """Dies here: a picture that needs a screen to be drawn."""
    path = tmp_path / "run.png"
    report.save_picture(path, run)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(content[k : k + 4], "big") for k in (16, 20))
    assert (width, height) == (1210, 880)


def test_terminal_summary_names_the_verdict_and_the_three_accounts(run):
    """Dies here: a summary that shows the return but not what it is compared with."""
    from rich.console import Console

    console = Console(width=120, record=True, file=StringIO())
    console.print(report.terminal_summary(run))
    text = console.export_text()
    for part in (
        run.metrics["verdict"]["headline"],
        "With macro",
        "Without macro",
        "Buy and hold",
        "Break-even",
        "Ceiling hit ratio",
        "42.0 % sure after 17 trials",
    ):
        assert part in text


def test_undefined_numbers_are_dashes():
    """Dies here: "nan %" or "None" shown to a person."""
    assert pages.percent(None) == pages.number(float("nan")) == pages.whole(None) == "–"
    assert pages.interval({"value": None, "low": None, "high": None}) == "–"
    assert pages.interval({"value": 0.5, "low": None, "high": None}) == "50.0 %"
    assert pages.interval({"value": 0.5, "low": 0.4, "high": 0.625}) == "50.0 % [40.0, 62.5]"


def test_gap_before_the_traded_span_does_not_stretch_the_equity_chart(run):
    """Dies here: a gap in the training span draws months of nothing before the equity."""
    first = int(run.equity["close_time_ms"].iloc[0])
    hour = 3_600_000
    spans = [(first - 500 * hour, first - 499 * hour), (first + hour, first + 2 * hour)]
    gaps = [{"symbol": "X", "start_ms": a, "end_ms": b, "candles": 12} for a, b in spans]
    drawn = charts.equity_figure(dataclasses.replace(run, gaps=gaps)).layout.shapes
    assert {(shape.x0, shape.x1) for shape in drawn} == {spans[1]}
