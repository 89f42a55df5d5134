"""The whole desk, asked in-process: what it serves, what it never serves, that it only reads."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from cppncripto_strategy.desk.listing import Listing

KINDS = ("session", "run", "experiment", "evolution", "candles")
TRICKS = (
    "..%2f..%2f", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "....//....//etc/passwd",
    "/etc/passwd", "%00", "C:%5Cwindows", "0123456789abcdef%00", "0123456789ABCDEF",
    "0123456789abcdef/../../session.json", "paper/real", "*", "'%20OR%201=1", "{{7*7}}",
    "${jndi:x}", "%f0%9f%92%a9", "a" * 5_000,
)  # fmt: skip
ROUTES = (
    "/sessions/{}", "/sessions/{}/view", "/sessions/{}/live", "/runs/{}", "/reports/run/{}",
    "/reports/{}/0123456789abcdef", "/days/{}", "/days/{}/figure", "/compare?run={}",
    "/static/{}", "/api/v1/sessions/{}", "/api/v1/sessions/{}/fills", "/api/v1/runs/{}",
    "/api/v1/runs/{}/equity", "/api/v1/embeddings/{}/days", "/api/v1/compare?run={}",
)  # fmt: skip


def ids(root: Path) -> dict[str, str]:
    """The first id of each kind."""
    listing = Listing(root)
    return {kind: listing.of(kind)[0].id for kind in KINDS}


def pages(root: Path) -> list[str]:
    """Every page of a folder that holds one of each kind."""
    known = ids(root)
    session, run = known["session"], known["run"]
    return [
        "/", "/runs", "/days", "/data", "/login", "/static/desk.css", "/static/plotly.js",
        f"/sessions/{session}", f"/sessions/{session}/view?symbol=AUSDT", f"/runs/{run}",
        f"/compare?run={run}&run={run}", f"/compare/figure?run={run}", f"/reports/run/{run}",
        "/api/v1/health", "/api/v1/sessions", f"/api/v1/sessions/{session}", "/api/v1/runs",
        f"/api/v1/sessions/{session}/candles?symbol=AUSDT", f"/api/v1/runs/{run}/equity",
        f"/api/v1/sessions/{session}/decisions", "/api/v1/experiments", "/api/v1/stores",
        "/api/v1/embeddings", "/api/v1/openapi.json",
    ]  # fmt: skip


def digest(root: Path) -> dict[str, str]:
    """Path -> hash and time of change, of every file."""
    return {
        str(path.relative_to(root)): f"{path.stat().st_mtime_ns} "
        + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_everything_is_served_and_nothing_is_changed(desk_of, copy_of):
    """A page that writes: a cache, a lock, a repair, a time of change."""
    before = digest(copy_of)
    client = desk_of(copy_of)
    for path in pages(copy_of):
        answer = client.get(path)
        assert answer.status_code in (200, 303), (path, answer.text)
    assert digest(copy_of) == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_no_route_takes_a_change(client, results, method):
    """A verb that a framework answers by itself."""
    for path in pages(results):
        if path != "/login":
            assert client.request(method, path).status_code in (404, 405), path


@pytest.mark.parametrize("trick", TRICKS)
def test_no_text_of_a_request_becomes_a_path(client, trick):
    """/sessions/../../etc/passwd."""
    for route in ROUTES:
        answer = client.get(route.format(trick))
        assert answer.status_code in (400, 404, 422, 307, 303), (route, answer.status_code)
        assert "root:" not in answer.text
        assert "session.json" not in answer.text.replace(trick, "")


def test_where_the_folder_lies_is_not_said(client, results):
    """An error, or a page, that names a path of the server."""
    for path in [*pages(results), "/runs/0123456789abcdef", "/api/v1/runs/x"]:
        answer = client.get(path)
        if not path.startswith("/static"):
            assert str(results) not in answer.text, path


def test_scripts_are_fetched_once_and_never_an_old_one(client):
    """Four megabytes at every page; or yesterday's script after an update, for a year."""
    named = re.search(
        r"/static/plotly\.js\?v=\w{16}",
        client.get("/").text
        + client.get(f"/sessions/{client.get('/api/v1/sessions').json()['items'][0]['id']}").text,
    )
    assert named is not None
    keeps = client.get(named[0], headers={"accept-encoding": "gzip"})
    assert "immutable" in keeps.headers["cache-control"]
    assert keeps.headers["content-encoding"] == "gzip"
    for path in ("/static/plotly.js", "/static/plotly.js?v=0123456789abcdef"):
        asked = client.get(path)
        assert asked.headers["cache-control"] == "no-cache"
        tag = {"if-none-match": asked.headers["etag"]}
        assert client.get(path, headers=tag).status_code == 304


def test_script_in_every_name_is_text(desk_of, copy_of, desk):
    """A recipe, a folder or a reason that runs in the browser of whoever looks."""
    script = "<img src=x onerror=alert(1)>"
    evil = copy_of / "runs" / f"{script} ''\"&"
    desk.make_run(evil / "20240401T000000Z", script, 4, 1.0)
    failed = evil / "20240402T000000Z"
    failed.mkdir()
    (failed / "log.jsonl").write_text('{"message": "<script>alert(2)</script>"}\n')
    folder = copy_of / "paper" / "real"
    event = {"kind": "<script>alert(3)</script>", "at_ms": 1, "reason": script}
    desk.append(folder, {"events": [event]})
    shutil.copytree(folder, copy_of / "paper" / script)
    client = desk_of(copy_of)
    listing = Listing(copy_of)
    found = [f"/runs/{entry.id}" for entry in listing.of("run")]
    found += [f"/sessions/{entry.id}" for entry in listing.of("session")]
    named = [entry.id for entry in listing.of("run") if "<img" in entry.name]
    found += ["/compare?" + "&".join(f"run={id}" for id in named)]
    shown = 0
    for path in ["/", "/runs", *found]:
        text = client.get(path).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        shown += text.count("&lt;img") + text.count("&lt;script&gt;alert")
    assert shown > 5
    figure = client.get("/compare/figure?" + found[-1].partition("?")[2]).text
    assert "<img" not in figure


def test_reports_are_served_where_they_can_reach_nothing(client, results):
    """A report from elsewhere that reads the API with the cookie of whoever opens it."""
    answer = client.get(f"/reports/run/{ids(results)['run']}")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy


def test_damaged_folders_are_pages_not_failures(desk_of, copy_of):
    """A file that a crash left, and a page that shows nothing else any more."""
    known = pages(copy_of)
    for path in sorted(copy_of.rglob("*")):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    client = desk_of(copy_of)
    for path in known:
        assert client.get(path).status_code in (200, 303, 404), path


def test_signing_in_gives_a_cookie_and_never_the_token(desk_of, results, token, caplog):
    """A token that is kept in the browser, in an address, or in a log."""
    caplog.set_level("DEBUG")
    client = desk_of(results, bearer=None)
    assert client.get("/").headers["location"] == "/login"
    wrong = client.post("/login", data={"token": "wrong"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = client.post("/login", data={"token": token})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert token not in cookie
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in cookie
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/health").status_code == 200
    out = client.post("/logout")
    assert "Max-Age=0" in out.headers["set-cookie"]
    client.cookies.clear()
    old = {"cookie": cookie.partition(";")[0]}
    assert client.get("/", headers=old).status_code == 303
    assert token not in caplog.text
    assert client.get(f"/api/v1/health?token={token}").status_code == 401


@pytest.mark.parametrize("body", [b"", b"token", b"token=" + b"x" * 9_000, b"\xff\0", b"a=1&" * 99])
def test_strange_forms_are_wrong_tokens(desk_of, results, body):
    """A form that takes the login page down."""
    client = desk_of(results, bearer=None)
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/login", content=body, headers=headers).status_code == 401


def test_wrong_tokens_on_the_login_page_are_slowed_down(desk_of, results):
    """Guessing through the form what the header is guarded against."""
    client = desk_of(results, bearer=None)
    statuses = [client.post("/login", data={"token": "x"}).status_code for _ in range(25)]
    assert statuses[0] == 401
    assert statuses[-1] == 429


def test_encrypted_desks_mark_their_cookie(desk_of, results, token):
    """A cookie that a browser also sends without encryption."""
    client = desk_of(results, bearer=None, behind_proxy=True)
    cookie = client.post("/login", data={"token": token}).headers["set-cookie"]
    assert cookie.startswith("__Host-desk=")
    assert "Secure" in cookie


def test_a_failure_of_ours_says_nothing_of_itself(client, monkeypatch):
    """A traceback on a page, with paths and values."""
    monkeypatch.setattr(
        "cppncripto_strategy.desk.library.Library.health",
        lambda self: (_ for _ in ()).throw(RuntimeError("secret")),
    )
    answer = client.get("/api/v1/health")
    assert (answer.status_code, "secret" in answer.text) == (500, False)
