"""The API responds as its own schema says, to any request.

``API_SEED`` selects the requests, and each run prints its seed; ``API_EXAMPLES`` makes
more requests.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.test import override_settings
from hypothesis import HealthCheck, Phase, seed, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from durable_jobs.models import Run
from tests.api.conftest import EVERY, V1, program_of
from tests.api.endpoints import ENDPOINTS, furnish

pytestmark = pytest.mark.django_db

SEED = int(os.environ.get("API_SEED", "20260304"))
EXAMPLES = int(os.environ.get("API_EXAMPLES", "12"))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

with override_settings(DURABLE_JOBS={"API_DESCRIPTION": "public"}):
    SCHEMA = schemathesis.openapi.from_wsgi(f"{V1}openapi.json", get_wsgi_application())
# Its own edge cases use other methods, which have tests of ours.
SCHEMA.config.phases.coverage.enabled = False


@pytest.fixture(autouse=True)
def one_connection():
    """Keep the test's own connection, as Django's client does."""
    for one in (request_started, request_finished):
        one.disconnect(close_old_connections)
    yield
    for one in (request_started, request_finished):
        one.connect(close_old_connections)


@pytest.fixture
def place(kit):
    return furnish(kit)


@pytest.fixture
def bearer(db):
    root = User.objects.create_superuser("root")
    return program_of(root, *EVERY).headers


@pytest.fixture
def asked():
    """Count responses by status, and check that some requests succeeded."""
    found: dict[int, int] = {}
    yield found
    print(f"API_SEED={SEED}", found)
    assert any(status < 300 for status in found), found


def put(case: Any, place: dict[str, Any], number: int) -> None:
    """Put ids of existing objects into most requests."""
    given = case.path_parameters
    action = case.path.rpartition("/")[2]
    known = {
        "run_id": str(place.get(action, place["run"])),
        "key": place["step"],
        "token": place["token"] if action == "succeed" else place["other_token"],
        "schedule_id": place["paused" if action == "resume" else "active"],
        "function_id": "tests.asks",
        "approval_id": str(place["approval"]),
    }
    for name in set(given or ()) & known.keys():
        if number % 4:
            given[name] = known[name]
    if isinstance(case.body, dict) and isinstance(case.body.get("step"), str):
        case.body["step"] = place["step"]


@SCHEMA.parametrize()
@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_response_always_conforms_to_the_schema(case, place, bearer, asked):
    number = sum(asked.values())
    put(case, place, number)
    case.headers = {**(case.headers or {}), **bearer}
    case.cookies = {}
    response = case.call()
    asked[response.status_code] = asked.get(response.status_code, 0) + 1
    case.validate_response(response, checks=CHECKS)


def test_schema_covers_every_endpoint():
    known = {
        (one.ok().method.upper(), one.ok().path) for one in SCHEMA.get_all_operations()
    }
    assert len(known) == len(ENDPOINTS)
    assert not Run.objects.exists()
