"""Each endpoint with each scope, permission and kind of authentication."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from durable_jobs import clock
from durable_jobs.api.application import build_api
from durable_jobs.control.scopes import SCOPES
from durable_jobs.maintenance import tick
from durable_jobs.models import Event, Run, Schedule, Worker
from tests.api.conftest import EVERY, Caller, person_of, problem, program_of, user_with
from tests.api.endpoints import ENDPOINTS, furnish

pytestmark = pytest.mark.django_db

NEEDY = [one for one in ENDPOINTS if one.permission is not None]
OPEN = [one for one in ENDPOINTS if one.permission is None and one.scope is None]


@pytest.fixture
def place(kit):
    now = clock.now()
    Worker.objects.create(name=tick.TICK, kind="beat", seen_at=now, started_at=now)
    return furnish(kit)


def state():
    """Return the state that a request could change."""
    rows = Run.objects.order_by("pk").values("pk", "status", "reason", "run_order")
    times = Schedule.objects.order_by("pk").values("pk", "paused_at", "last_run")
    return list(rows), list(times), Event.objects.count()


def test_table_has_every_endpoint():
    known = {
        f"{method} /{path}"
        for router in build_api()._get_bound_routers()
        for path, view in router.path_operations.items()
        for operation in view.operations
        for method in operation.methods
        for path in [path.strip("/")]
    }
    assert len(known) == len(ENDPOINTS)


@pytest.mark.parametrize("endpoint", NEEDY, ids=str)
def test_scope_and_the_permission_of_the_owner_are_enough(place, endpoint):
    user = user_with(endpoint.permission)
    response = endpoint.ask(program_of(user, endpoint.scope), place)
    assert response.status_code < 300, response.content


@pytest.mark.parametrize("endpoint", NEEDY, ids=str)
def test_every_other_scope_is_not(place, endpoint):
    before = state()
    owner = User.objects.create_superuser("owner")
    others = [scope for scope in EVERY if scope != endpoint.scope]
    found = problem(endpoint.ask(program_of(owner, *others), place), 403, "forbidden")
    assert endpoint.scope in found["detail"]
    assert state() == before


@pytest.mark.parametrize("endpoint", NEEDY, ids=str)
def test_every_other_permission_is_not(place, endpoint):
    before = state()
    others = {name for names in SCOPES.values() for name in names}
    user = user_with(*(others - {endpoint.permission}), is_staff=True)
    callers = [program_of(user, *EVERY), person_of(user)]
    for caller in callers:
        response = endpoint.ask(caller, place)
        # A user who may not see runs does not learn which exist.
        assert response.status_code in (403, 404)
        problem(response, response.status_code, response.json()["code"])
        assert (response.status_code == 404) == (
            endpoint.permission == "view_run" and "{run}" in endpoint.path
        )
    assert state() == before


@pytest.mark.parametrize("endpoint", NEEDY, ids=str)
def test_member_of_the_staff_with_the_permission_may_by_the_session(place, endpoint):
    person = person_of(user_with(endpoint.permission, is_staff=True))
    assert endpoint.ask(person, place).status_code < 300


@pytest.mark.parametrize("endpoint", NEEDY, ids=str)
def test_anonymous_unprivileged_and_inactive_users_are_refused(place, endpoint):
    before = state()
    user = user_with(endpoint.permission)
    sleeper = user_with(endpoint.permission, is_staff=True)
    callers = [Caller(), person_of(user), person_of(sleeper)]
    User.objects.filter(pk=sleeper.pk).update(is_active=False)
    for caller in callers:
        problem(endpoint.ask(caller, place), 401, "unauthorized")
    assert state() == before


@pytest.mark.parametrize(
    "endpoint", [one for one in NEEDY if one.method == "POST"], ids=str
)
def test_forged_request_of_a_logged_in_user_does_nothing(place, endpoint):
    before = state()
    root = User.objects.create_superuser("root")
    forged = person_of(root)
    forged.headers.clear()
    problem(endpoint.ask(forged, place), 403, "csrf-failed")
    # Nor as a form of another site could post it.
    body = b'{"name": "tests/x"}'
    response = forged.post(endpoint.path.format(**place), body, "text/plain")
    problem(response, 403, "csrf-failed")
    assert state() == before


@pytest.mark.parametrize("endpoint", OPEN, ids=str)
def test_public_endpoint_ignores_cookies(place, endpoint):
    caller = Caller()
    caller.client.force_login(User.objects.create_superuser("root"))
    assert endpoint.ask(caller, place).status_code < 300
