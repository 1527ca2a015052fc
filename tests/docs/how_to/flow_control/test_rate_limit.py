"""Examples of docs/how-to/flow-control/rate-limit.md."""

from __future__ import annotations

from datetime import timedelta

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, kit):
    run_example()

    def alarm(wanted):
        durable.send("shop/alarm.raised", {"machine": "press"})
        kit.run_until_idle()
        run = Run.objects.latest("pk")
        assert run.status == wanted, (run.status, run.reason)
        return run

    first = alarm("completed")
    kit.advance("3s")
    alarm("completed")
    kit.advance("3s")
    alarm("completed")
    kit.advance("3s")
    skipped = alarm("skipped")
    again = first.queued_at + timedelta(seconds=10)
    assert skipped.reason == (
        'rate limit: 3 starts in 10s were reached for key "press"; '
        f"the next start is accepted at {again.isoformat()}."
    )
    kit.advance("2500ms")
    alarm("completed")
    kit.advance("1300ms")
    alarm("skipped")
