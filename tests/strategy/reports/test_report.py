"""The report page of made-up runs."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import numpy as np

from cppncripto_strategy.evaluation.account import Account
from cppncripto_strategy.evaluation.metrics import run_metrics
from cppncripto_strategy.evaluation.signals import Yardstick
from cppncripto_strategy.feeds.filters import KnownFilters, SymbolFilters
from cppncripto_strategy.reports import report
from cppncripto_strategy.reports.picture import save_picture
from cppncripto_strategy.results import empty_table, to_plain

CANDLE = 3_600_000
PAGE_LIMIT_BYTES = 8_000_000


def test_report_is_one_small_page_that_fetches_nothing(run, tmp_path, no_warnings, requests_of):
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
        "with macro is lower than that of a network trained without it, and higher than",
        "0.9223",
        "−0.0123 [−0.0200, −0.0040]",
        "How far macro moved the score",
        "Calibration",
        "Embedding drift",
        "Orders not filled",
        "2024-01-03 00:00",
        "2024-01-03 01:20",
        "Active bundles",
        "1.0123",
        "abc123",
        "window = 60",
    ):
        assert part in body, part


def test_report_names_the_rules_of_every_symbol(run, tmp_path):
    """Dies here: fills that obey rules which the page does not say, nor whose they are."""
    rules = KnownFilters(
        SymbolFilters(lot_step=Decimal("0.1"), max_qty=Decimal(90)), "the exchange"
    )
    rules = dataclasses.replace(rules, stated_ms=1_700_000_000_000)
    run = dataclasses.replace(run, filters=[{"symbol": "XRPUSDT", **rules.to_plain()}])
    report.write_report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    for part in ("Exchange rules", "0.1", "90", "2023-11-14", "the exchange"):
        assert part in page


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


def test_report_of_a_run_without_macro_does_not_claim_it(tmp_path, made_run):
    """Dies here: "with macro" over the account of a recipe that switched macro off."""
    run = made_run(days=6, without_macro=False)
    bare = dataclasses.replace(run, recipe={"name": "bare", "macro": {"enabled": False}})
    report.write_report(bare, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Strategy (no macro)" in page
    assert "With macro" not in page
    assert "the log loss of the probabilities is higher than that of the constant" in page
    for number in ("0.9223", "−0.0123"):  # of the arm that there is none of
        assert number not in page


def test_report_of_a_run_that_did_nothing_is_still_a_page(tmp_path, no_warnings, made_run):
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
    save_picture(tmp_path / "picture.png", idle)
