"""Requests made up from the OpenAPI document: no failure of ours, every answer as declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.specs.openapi import checks  # noqa: E402

from cppncripto_strategy.desk.app import document  # noqa: E402
from cppncripto_strategy.desk.listing import Listing  # noqa: E402

EXAMPLES = 20
HOST = "http://127.0.0.1:8470"
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(document(Path(".")))
OPERATIONS = {
    f"{operation.ok().method.upper()} {operation.ok().path}": operation.ok()
    for operation in SCHEMA.get_all_operations()
}


@pytest.fixture(scope="session")
def known(results: Path) -> dict[str, str]:
    """Part of a path -> an id that there is."""
    listing = Listing(results)
    return {f"/{kind}s/": listing.of(kind)[0].id for kind in ("session", "run")}


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_fails_and_every_answer_is_as_declared(client: Any, known: Any, name: str):
    """A 500 for a value that nobody tried, an answer that a made client cannot read."""

    @hypothesis.given(case=OPERATIONS[name].as_strategy(), real=st.booleans())
    @hypothesis.settings(
        max_examples=EXAMPLES, database=None, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def ask(case: Any, real: bool) -> None:
        ids = [id for part, id in known.items() if part in case.path]
        if real and ids and "id" in case.path_parameters:
            case.path_parameters["id"] = ids[0]
        sent = case.as_transport_kwargs(base_url=HOST)
        given = {key: sent[key] for key in ("params", "json", "content") if sent.get(key)}
        answer = client.request(sent["method"], sent["url"], **given)
        case.validate_response(answer, checks=CHECKS)

    ask()
