"""Metrics, and the example rules and dashboard that are made of them."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

parser = pytest.importorskip("prometheus_client.parser")

EXAMPLES = Path(__file__).parents[3] / "examples" / "desk"
LABELS = {"session", "symbol", "bet", "state", "job"}


@pytest.fixture(scope="module")
def samples(client) -> dict[str, list[Any]]:
    """Name -> samples, as Prometheus reads them."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found: dict[str, list[Any]] = {}
    for family in parser.text_string_to_metric_families(answer.text):
        found.setdefault(family.name, [])  # one that only running sessions have samples of
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def value(samples: dict[str, list[Any]], name: str, **labels: str) -> float:
    """The one sample with these labels."""
    [found] = [s for s in samples[name] if labels.items() <= s.labels.items()]
    return float(found.value)


def test_metrics_are_what_the_pages_say(samples, client):
    """An alert on a number that nobody else sees."""
    session = client.get("/api/v1/sessions").json()["items"][0]
    for name, field in (("equity", "equity"), ("fills_total", "fills"), ("gaps", "gaps"),
                        ("orders_missed_total", "missed"), ("drawdown_ratio", "drawdown"),
                        ("rounds_total", "rounds"), ("starts_total", "starts"),
                        ("reconnects_total", "reconnects"), ("lag_seconds", "lag_s")):  # fmt: skip
        assert value(samples, f"cppn_session_{name}", session="paper/real") == session[field]
    assert value(samples, "cppn_session_state", state="stopped") == 1
    assert value(samples, "cppn_session_state", state="running") == 0
    assert value(samples, "cppn_session_evidence_wealth", bet="account") == 2.5
    assert value(samples, "cppn_session_embedding_drift", symbol="BUSDT") == 1.25
    assert value(samples, "cppn_session_readable", session="paper/real") == 1


def test_latency_is_a_histogram_of_live_rounds(samples, desk):
    """Buckets that do not add up, or in milliseconds: a p99 of nothing."""
    live = set(range(desk.live_from, desk.rounds)) - set(desk.down)
    taken = [desk.latency_s(number) for number in live]
    name = "cppn_session_decision_latency_seconds"
    assert value(samples, f"{name}_count", session="paper/real") == len(taken)
    assert value(samples, f"{name}_sum") == pytest.approx(sum(taken))
    for bound in ("0.001", "0.0025", "0.01", "0.025", "+Inf"):
        expected = sum(seconds <= float(bound) for seconds in taken)
        assert value(samples, f"{name}_bucket", le=bound) == expected


def test_connection_is_a_sample_of_running_sessions_alone(desk_of, copy_of, desk):
    """A session that was stopped on purpose, and an alert that its connection is lost."""
    folder = copy_of / "paper" / "real"
    assert "cppn_session_connected{" not in desk_of(copy_of).get("/metrics").text
    (folder / ".lock").write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}))
    desk.append(folder, {"events": [{"kind": "start", "at_ms": 1}]})
    for kind, sample in (("connected", 1.0), ("connection_lost", 0.0)):
        desk.append(folder, {"events": [{"kind": kind, "at_ms": 1, "away_s": None}]})
        text = desk_of(copy_of).get("/metrics").text
        assert f'cppn_session_connected{{session="paper/real"}} {sample}' in text


def test_what_is_not_known_has_no_sample(desk_of, tmp_path, desk, results):
    """A drawdown of 0 of a session that has no equity yet."""
    shutil.copytree(results / "paper", tmp_path / "paper")
    (tmp_path / "paper" / "real" / "equity.jsonl").write_bytes(b"")
    text = desk_of(tmp_path).get("/metrics").text
    assert "cppn_session_equity{" not in text
    assert "cppn_session_rounds_total{" in text


def test_metrics_need_the_token(desk_of, results):
    """Results that anybody on the network scrapes."""
    assert desk_of(results, bearer=None).get("/metrics").status_code == 401


def rules() -> Iterator[dict[str, Any]]:
    """Every example alert."""
    document = yaml.safe_load((EXAMPLES / "alert-rules.yml").read_text("utf-8"))
    for group in document["groups"]:
        yield from group["rules"]


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every example."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    board = json.loads((EXAMPLES / "grafana.json").read_text("utf-8"))
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_examples_ask_for_metrics_that_there_are(samples, where, expression):
    """An alert on a metric that was renamed: it never fires, and nobody notices."""
    names = re.findall(r"\bcppn_\w+", expression)
    assert names or "up{" in expression
    for name in names:
        assert name in samples, name
    assert set(re.findall(r"(\w+)=~?\"", expression)) <= LABELS


def test_alerts_say_what_happened():
    """An alert without words, twice under one name, or about a label that it lacks."""
    found = list(rules())
    assert len({rule["alert"] for rule in found}) == len(found) >= 8
    for rule in found:
        summary = rule["annotations"]["summary"]
        assert set(re.findall(r"\$labels\.(\w+)", summary)) <= LABELS
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_dashboard_is_whole():
    """Two panels of one number, a query without a data source, panels over each other."""
    board = json.loads((EXAMPLES / "grafana.json").read_text("utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_promtool_accepts_the_rules():
    """PromQL that only Prometheus finds wrong."""
    command = ["promtool", "check", "rules", str(EXAMPLES / "alert-rules.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
