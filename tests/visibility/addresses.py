"""Every address of the app, from the URL confs, with the meaning of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.admin.utils import quote
from django.urls import URLPattern, get_resolver, reverse

from durable_jobs.control.run_actions import ACTIONS
from durable_jobs.models import Worker
from tests.visibility.worlds import World

ADMIN, API, OWN = "admin:durable_jobs_", "durable_jobs:api:", "durable_jobs:"
HOST = "admin:shop_order_"
#: Public, or protected by a token that names no run of a viewer's.
NOT_FOR_VIEWERS = {
    f"{API}{name}" for name in ("succeed", "fail", "heartbeat", "health", "ready")
} | {f"{OWN}webhook", f"{API}openapi", f"{API}api-root"}


def names() -> dict[str, set[str]]:
    """Return the names of all addresses of the app, each with its parts."""
    return dict(_walk(get_resolver().url_patterns, ""))


def _walk(patterns: Any, space: str) -> Iterator[tuple[str, set[str]]]:
    for one in patterns:
        if not isinstance(one, URLPattern):
            inner = f"{space}{one.namespace}:" if one.namespace else space
            yield from _walk(one.url_patterns, inner)
        elif one.name and f"{space}{one.name}".startswith((ADMIN, OWN, HOST)):
            yield f"{space}{one.name}", set(one.pattern.converters)


def places(name: str, parts: set[str], world: World) -> list[dict[str, Any]]:
    """Return the values for the parts of an address; raise for unknown parts."""
    if not parts:
        return [{}]
    if parts == {"object_id"}:
        model = name.rpartition(":")[2].split("_")[-2]
        return [{"object_id": quote(str(key))} for key in _keys(model, world)]
    if name == f"{ADMIN}run_act":
        pk = world.runs["hears"].pk
        return [{"pk": pk, "action": action} for action in ACTIONS]
    if name == f"{ADMIN}schedule_act":
        actions = ("run", "pause", "resume")
        return [{"pk": world.schedule.pk, "action": action} for action in actions]
    found: dict[str, Any] = {}
    for part in parts:
        found[part] = _part(name, part, world)
    if "run_id" in found and name not in (f"{ADMIN}approval",):
        return [
            {**found, "run_id": run.pk}
            for run in world.runs.values()
            if "key" not in parts or run == world.runs["done"]
        ]
    return [found]


def _keys(model: str, world: World) -> list[Any]:
    known: dict[str, list[Any]] = {
        "run": [run.pk for run in world.runs.values()],
        "step": [world.step.pk, world.asked.pk],
        "event": [world.event],
        "limit": [world.limit.pk],
        "pause": [world.pause.pk],
        "schedule": [world.schedule.pk],
        "sweeperror": [world.sweep_error.pk],
        "apikey": [world.key.pk],
        "worker": list(Worker.objects.values_list("pk", flat=True)),
        "order": [world.order.pk],
    }
    return known[model]


def _part(name: str, part: str, world: World) -> Any:
    if name == f"{ADMIN}approval":
        return {"run_id": world.runs["asks"].pk, "key": world.asked.key}[part]
    if name.startswith(f"{ADMIN}function"):
        return quote("tests.limited")
    known: dict[tuple[str, str], Any] = {
        (f"{ADMIN}event_resend", "key"): quote(world.event),
        (f"{ADMIN}queue_pause", "key"): "default",
        (f"{ADMIN}resume", "pk"): world.pause.pk,
        (f"{ADMIN}run_document", "pk"): world.runs["done"].pk,
        (f"{ADMIN}run_test", "pk"): world.runs["done"].pk,
        (f"{HOST}durable_start", "function_id"): "tests.works",
        (f"{API}send_signal", "name"): "no-such-signal",
        (f"{API}get_step", "key"): world.step.key,
        (f"{OWN}progress", "token"): world.token(),
        (f"{OWN}progress_fragment", "token"): world.token(),
    }
    if (name, part) in known:
        return known[name, part]
    return {
        "run_id": world.runs["done"].pk,
        "approval_id": world.asked.pk,
        "function_id": "tests.limited",
        "schedule_id": world.schedule.pk,
    }[part]


def reversed_(name: str, place: dict[str, Any]) -> str:
    """Return an address."""
    return reverse(name, kwargs=place)


#: The parts that identify an object of a tenant.
OF_A_TENANT = {"object_id", "pk", "run_id", "schedule_id", "approval_id", "token"}
#: Their objects belong to no tenant: the project's own pages, and keys of users.
OF_NOBODY = (
    "admin:shop_order_",
    "admin:durable_jobs_apikey",
    "admin:durable_jobs_worker",
)


def is_of_a_tenant(name: str, parts: set[str]) -> bool:
    """Return whether an address shows an object of a tenant."""
    return not name.startswith(OF_NOBODY) and bool(
        parts & OF_A_TENANT or name == f"{ADMIN}event_resend"
    )
