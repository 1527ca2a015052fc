"""Which events match a wait."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from durable_jobs import durable
from durable_jobs.engine import attempt
from durable_jobs.events import routing
from durable_jobs.models import Run
from durable_jobs.store import leases
from durable_jobs.testing import Kit

TEXT = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


@pytest.mark.parametrize(
    ("own", "other"),
    [(UUID(TEXT), TEXT), (TEXT, UUID(TEXT)), (Decimal("7.00"), 7), (7, 7.0)],
    ids=repr,
)
def test_values_match_as_json_would_write_them(
    durable_kit: Kit, own: Any, other: Any
) -> None:
    @durable.function(id="tests.matching", on=durable.Event("tests/begin"))
    def waits(ctx: durable.Context) -> str:
        ctx.step.wait_for_event("came", "tests/came", match="data.id")
        return "came"

    durable_kit.send("tests/begin", {"id": own})
    durable_kit.run_until_idle()
    durable_kit.send("tests/came", {"id": other})
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "completed"


def test_triggering_event_does_not_match_a_wait_of_its_run(
    durable_kit: Kit,
) -> None:
    @durable.function(id="tests.again", on=durable.Event("tests/ping"))
    def again(ctx: durable.Context) -> Any:
        return ctx.step.wait_for_event("next", "tests/ping").data

    durable_kit.send("tests/ping", {"number": 1})
    # A worker that is faster than the matching of the event.
    (run,) = leases.claim("default", 8, "fast")
    attempt.execute_attempt(run, threads=0)
    routing.route_pending()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "waiting"
    Run.objects.exclude(pk=run.pk).delete()
    durable_kit.send("tests/ping", {"number": 2})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"number": 2}


@pytest.mark.parametrize("others", [1001])
def test_event_that_came_before_is_found_among_many(
    durable_kit: Kit, others: int
) -> None:
    @durable.function(id="tests.late", on=durable.Event("tests/begin"))
    def late(ctx: durable.Context) -> Any:
        ctx.step.sleep("nap", "1h")
        return ctx.step.wait_for_event(
            "mine",
            "tests/came",
            if_=lambda own, came: came.data["id"] == own.data["id"],
            since="run",
        ).data

    durable_kit.send("tests/begin", {"id": "mine"})
    durable_kit.run_until_idle()
    durable_kit.send_many(
        [durable.NewEvent("tests/came", {"id": number}) for number in range(others)]
    )
    durable_kit.advance("1m")
    durable_kit.send("tests/came", {"id": "mine"})
    durable_kit.advance("1h")
    assert Run.objects.get().result() == {"id": "mine"}
