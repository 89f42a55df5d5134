"""The API's answers: right, in pages, tagged, and as the document declares them."""

from __future__ import annotations

import pytest

from cppncripto_strategy.desk import sessions
from cppncripto_strategy.desk.listing import Listing

V1 = "/api/v1"


@pytest.fixture
def session(results):
    """Address of the session."""
    return f"{V1}/sessions/{Listing(results).of('session')[0].id}"


@pytest.fixture
def run(results):
    """Address of the first run."""
    return f"{V1}/runs/{Listing(results).of('run')[0].id}"


def whole(client, path: str, **query) -> list:
    """Every item of a list, page by page."""
    items, cursor = [], 0
    while cursor is not None:
        page = client.get(path, params={**query, "cursor": cursor}).json()
        items += page["items"]
        cursor = page["next"]
    return items


def test_times_are_milliseconds_and_iso(client, session, desk):
    """A time of the server's own zone."""
    found = client.get(session).json()
    assert found["created"] == {"ms": desk.start_ms, "iso": "2024-03-01T00:00:00.000Z"}


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_pages_give_every_decision_once(client, session, desk, limit):
    """A page that begins where another one did, or later."""
    found = whole(client, f"{session}/decisions", limit=limit, symbol="BUSDT")
    closes = [decision["close_time"]["ms"] for decision in found]
    assert closes == [desk.close_ms(n) for n in range(desk.rounds) if n != 20]
    assert {decision["symbol"] for decision in found} == {"BUSDT"}
    assert found[0]["score_zero"] is None


def test_candles_are_those_that_the_session_saw(client, session, desk):
    """A candle named by its close, or of another symbol."""
    found = whole(client, f"{session}/candles", limit=9, symbol="AUSDT")
    assert len(found) == desk.rounds
    assert found[3] == {
        "symbol": "AUSDT",
        "open_time": found[2]["close_time"],
        "close_time": found[4]["open_time"],
        "open": 103.0, "high": 105.0, "low": 101.0, "close": 104.0, "volume": 5.0,
    }  # fmt: skip


def test_the_newest_come_when_asked_for(client, session, desk):
    """A bot that reads a year of equity to know today's."""
    page = client.get(f"{session}/equity", params={"last": True, "limit": 3}).json()
    ends = [point["close_time"]["ms"] for point in page["items"]]
    assert ends == [desk.close_ms(desk.rounds - n) for n in (3, 2, 1)]
    assert page["next"] is None
    assert page["items"][-1]["equity"] == desk.equity(desk.rounds - 1)


def test_fills_and_events_are_as_recorded(client, session):
    """A missed order that the API calls a fill."""
    fills = whole(client, f"{session}/fills", limit=2)
    assert {fill["status"] for fill in fills} == {"filled", "refused"}
    assert all(fill["price"] is None for fill in fills if fill["status"] == "refused")
    events = whole(client, f"{session}/events")
    kinds = [event["kind"] for event in events if "connect" not in event["kind"]]
    assert kinds == ["start", "symbol_back", "stop"]


def test_runs_are_listed_and_compared(client, run):
    """A list without the run that failed, a comparison of other runs."""
    runs = whole(client, f"{V1}/runs", limit=1)
    assert [bool(one["problem"]) for one in runs] == [False, False, True]
    detail = client.get(run).json()
    assert detail["metrics"]["strategy"]["sharpe"] == detail["sharpe"] == 1.5
    assert 'name = "tiny"' in detail["recipe_toml"]
    query = [("run", one["id"]) for one in runs[:2]]
    found = client.get(f"{V1}/compare", params=query).json()
    assert [one["key"] for one in found["differences"]] == ["seed", "strategy.hold_candles"]
    curve = client.get(f"{run}/equity").json()
    assert curve["growth"][0] == 1.0


def test_an_answer_that_is_known_is_not_sent_again(client, run):
    """A viewer that fetches the same page a hundred times."""
    first = client.get(run)
    tag = first.headers["etag"]
    again = client.get(run, headers={"if-none-match": f'"other", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(run, headers={"if-none-match": '"other"'}).status_code == 200
    assert "no-cache" in first.headers["cache-control"]


def test_a_changed_session_has_another_tag(desk_of, copy_of, desk, monkeypatch):
    """A viewer that is shown yesterday because its tag still fits."""
    monkeypatch.setattr(sessions, "LOOK_S", 0.0)  # else a look counts for a fifth of a second
    [entry] = Listing(copy_of).of("session")
    client = desk_of(copy_of)
    path = f"{V1}/sessions/{entry.id}/equity"
    before = client.get(path).headers["etag"]
    desk.append(entry.path, desk.round_records(desk.rounds))
    assert client.get(path, headers={"if-none-match": before}).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "cursor=-1", "cursor=3", "cursor=99999999999999999999",
     "symbol=" + "x" * 41],
)  # fmt: skip
def test_values_out_of_range_are_refused_in_words(client, session, query):
    """A limit of a billion."""
    answer = client.get(f"{session}/decisions?{query}")
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_unknown_ids_are_404_with_a_reason(client):
    """A 500, or an empty answer that looks like a session."""
    answer = client.get(f"{V1}/sessions/0123456789abcdef")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "there is no session 0123456789abcdef"}


def test_health_counts(client):
    """A desk that says it is well whatever it follows."""
    found = client.get(f"{V1}/health").json()
    assert (found["status"], found["sessions"], found["running"]) == ("ok", 1, 0)


def test_stores_and_experiments_are_listed(client):
    """A part of the folder that only pages show."""
    [store] = whole(client, f"{V1}/stores")
    assert store["series"][0]["holes"] == 1
    assert [one["kind"] for one in whole(client, f"{V1}/experiments")] == [
        "experiment",
        "evolution",
        "tuning",
    ]


def test_document_declares_the_token_and_every_refusal(client):
    """A client made from a document that knows no 401."""
    document = client.get(f"{V1}/openapi.json").json()
    assert document["security"] == [{"token": []}]
    assert len(document["paths"]) > 15
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            assert {"401", "422", "429"} <= set(operation["responses"]), (verb, path)
            assert operation["description"], path
