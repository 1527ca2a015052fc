"""Ids and keys of different owners never collide, and a key sends only its events."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from durable_jobs import durable
from durable_jobs.control import id_namespaces
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import Event, IdempotencyKey, Run
from durable_jobs.testing import Kit
from tests.api.conftest import EVERY, Caller, person_of, problem, program_of

pytestmark = pytest.mark.django_db

IDS = "order-77"


@pytest.fixture
def placed(kit: Kit) -> durable.Function:
    """Declare a function that an event starts."""
    made: durable.Function = durable.function(
        id="shop.placed", on=durable.Event("shop/placed")
    )(lambda ctx: ctx.event.data)
    return made


@pytest.fixture
def owners(db: None) -> list[User]:
    """Return two users who may do everything."""
    return [User.objects.create_superuser(f"owner-{n}") for n in range(2)]


def event(number: int, id: str = IDS, name: str = "shop/placed") -> dict[str, Any]:
    """Return an event to send."""
    return {"name": name, "data": {"n": number}, "id": id}


def test_event_ids_of_two_owners_do_not_meet(kit, placed, owners):
    one, other = (program_of(owner, *EVERY) for owner in owners)
    durable.send("shop/placed", {"n": 0}, id=IDS)
    assert one.post("events", event(1)).json() == {"ids": [IDS]}
    assert other.post("events", event(2)).json() == {"ids": [IDS]}
    for number, caller in ((3, one), (4, other)):
        assert caller.post("events", event(number)).json() == {"ids": [IDS]}
    kit.run_until_idle()
    assert sorted(run.result()["n"] for run in Run.objects.all()) == [0, 1, 2]
    stored = {f"api:{id_namespaces.of_user(owner)}:{IDS}" for owner in owners}
    assert {row.pk for row in Event.objects.all()} == {IDS, *stored}


def test_keys_of_one_owner_share_their_ids(kit, placed, owners):
    first, second = (program_of(owners[0], *EVERY) for _ in range(2))
    first.post("events", event(1))
    second.post("events", event(2))
    person_of(owners[0]).post("events", event(3))
    assert Run.objects.get().data == {"n": 1}


def test_secrets_of_the_settings_have_ids_of_their_own(kit, placed):
    secrets = ["a" * 40, "b" * 40]
    with override_settings(DURABLE_JOBS={"EVENT_KEYS": secrets}):
        for number, secret in enumerate(secrets * 2):
            caller = Caller(headers={"Authorization": f"Bearer {secret}"})
            assert caller.post("events", event(number)).json() == {"ids": [IDS]}
    rows = Event.objects.all()
    assert sorted(row.data["n"] for row in rows) == [0, 1]
    assert not any(secret in row.pk for row in rows for secret in secrets)


def test_conflict_names_only_what_its_owner_has_sent(kit, placed, owners):
    one, other = (program_of(owner, *EVERY) for owner in owners)
    one.post("events", event(1))
    assert other.post("events", event(2, name="shop/other")).status_code == 202
    refused = problem(
        one.post("events", event(3, name="shop/more")), 409, "duplicate-key"
    )
    said = "The event id 'order-77' was used for 'shop/placed'"
    assert refused["detail"].startswith(said)
    assert "api:" not in refused["detail"]


def test_start_keys_of_two_owners_and_of_the_project_do_not_meet(kit, placed, owners):
    one, other = (program_of(owner, *EVERY) for owner in owners)
    own = placed.using(key=IDS).enqueue({"n": 0})
    runs = []
    for number, caller in ((1, one), (2, other)):
        body = {"data": {"n": number}, "key": IDS}
        first = caller.post("functions/shop.placed/runs", body)
        again = caller.post("functions/shop.placed/runs", body)
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["key"] == IDS
        assert first.json()["id"] == again.json()["id"]
        runs.append(first.json()["id"])
        changed = {"data": {"n": -1}, "key": IDS}
        refused = caller.post("functions/shop.placed/runs", changed)
        detail = problem(refused, 409, "duplicate-key")["detail"]
        assert detail.startswith("The key 'order-77'")
        assert runs[-1] in detail
    assert len({str(own.pk), *runs}) == 3
    assert IdempotencyKey.objects.filter(key__startswith="key:").count() == 3


def test_ids_of_the_maximum_length_are_distinct(kit, placed, owners):
    one, other = (program_of(owner, *EVERY) for owner in owners)
    for caller in (one, other):
        for last in "ab":
            long = "x" * 254 + last
            assert caller.post("events", event(1, long)).json() == {"ids": [long]}
            body = {"data": {}, "key": long}
            assert caller.post("functions/shop.placed/runs", body).status_code == 201
    assert Event.objects.count() == 4
    assert Run.objects.count() == 8
    for wrong in ("x" * 256, " x", "x ", "a\nb"):
        assert one.post("events", event(1, wrong)).status_code == 422
        body = {"data": {}, "key": wrong}
        assert one.post("functions/shop.placed/runs", body).status_code == 422


def test_runs_are_found_by_the_ids_that_their_owner_has_sent(kit, placed, owners):
    one, other = (program_of(owner, *EVERY) for owner in owners)
    one.post("events", event(1))
    one.post("functions/shop.placed/runs", {"data": {"n": 2}, "key": "key-1"})
    by_event = Run.objects.get(data__n=1)
    by_key = Run.objects.get(data__n=2)

    def found(caller: Caller, **params: str) -> list[str]:
        return [run["id"] for run in caller.get("runs", params).json()["runs"]]

    for name in ("event", "q"):
        assert found(one, **{name: IDS}) == [str(by_event.pk)]
        assert found(other, **{name: IDS}) == []
    for name in ("key", "q"):
        assert found(one, **{name: "key-1"}) == [str(by_key.pk)]
        assert found(other, **{name: "key-1"}) == []
    stored = f"api:{id_namespaces.of_user(owners[0])}:{IDS}"
    assert found(other, event=stored) == [str(by_event.pk)]
    shown = one.get(f"runs/{by_event.pk}").json()["event"]
    assert (shown, other.get(f"runs/{by_event.pk}").json()["event"]) == (IDS, stored)
    assert one.get("runs", {"event": IDS}).json()["runs"][0]["event"] == IDS
    host = durable.send("shop/placed", {"n": 3}, id="mine")
    assert found(one, event=host) == [str(Run.objects.get(data__n=3).pk)]
    body = {"action": "cancel", "filter": {"event": IDS}}
    assert one.post("runs/bulk", body).status_code == 202
    problem(other.post("runs/bulk", body), 409, "refused")


# The events of a key


def test_key_bound_to_names_starts_only_their_functions(kit, owners):
    for id, on in {
        "shop.exact": [durable.Event("shop/placed")],
        "shop.wild": [durable.Event("shop/*")],
        "shop.narrow": [durable.Event("shop/order.*")],
        "bank.pay": [durable.Event("bank/paid")],
        "bank.none": [],
    }.items():
        durable.function(id=id, on=on)(lambda ctx: None)
    bound = program_of(owners[0], *EVERY, events=["shop/order.", "shop/placed"])
    status = {
        id: bound.post(f"functions/{id}/runs", {"data": {}}).status_code
        for id in ("shop.exact", "shop.wild", "shop.narrow", "bank.pay", "bank.none")
    }
    assert status == {
        "shop.exact": 201,
        "shop.wild": 201,
        "shop.narrow": 201,
        "bank.pay": 403,
        "bank.none": 403,
    }
    free = program_of(owners[0], *EVERY)
    assert free.post("functions/bank.none/runs").status_code == 201


def test_key_bound_to_names_sends_no_data_to_other_runs(kit, owners):
    @durable.function(id="bank.pay", on=durable.Event("bank/paid"))
    def pay(ctx: durable.Context) -> Any:
        event = ctx.step.wait_for_event("wait", "bank/approved", timeout="1d")
        return event and event.data

    run = pay.enqueue({})
    kit.run_until_idle()
    bound = program_of(owners[0], *EVERY, events=["shop/"])
    changed = bound.post(f"runs/{run.pk}/rerun", {"data": {"to": "me"}})
    problem(changed, 403, "forbidden")
    answer = {"step": run.steps.get().key, "value": {"yes": True}}
    problem(bound.post(f"runs/{run.pk}/answer", answer), 403, "forbidden")
    assert Run.objects.count() == 1
    own = program_of(owners[0], *EVERY, events=["bank/"])
    assert own.post(f"runs/{run.pk}/answer", answer).status_code == 200


def test_key_bound_to_names_sends_only_signals_called_so(kit, owners):
    bound = program_of(owners[0], *EVERY, events=["shop."])
    problem(bound.post("signals/bank.go"), 403, "forbidden")
    problem(bound.post("signals/go", {"data": 1}), 403, "forbidden")
    assert bound.post("signals/shop.go").status_code == 200


@pytest.mark.parametrize(
    "name", ["durable/cron", "inngest/function.invoked", "webhook/acme", "webhook/"]
)
def test_names_of_the_product_cannot_be_sent(kit, api, name):
    for send in (durable.send, kit.send):
        with pytest.raises(ConfigurationError, match="reserved"):
            send(name, {})
    problem(api.post("events", {"name": name}), 422, "invalid")

    @durable.function(id="tests.sends", retries=0)
    def sends(ctx: durable.Context) -> Any:
        return ctx.step.send_event("forge", durable.NewEvent(name, {}))

    run = sends.enqueue()
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "failed"
    assert "reserved" in run.error["message"]
    assert not Event.objects.exists()
