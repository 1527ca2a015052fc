"""Examples of docs/how-to/flow-control/singleton.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, kit):
    run_example()

    def twice(name, **data):
        for _ in range(2):
            durable.send(name, data)
            kit.run_until_idle()
        first, second = Run.objects.filter(trigger=name).order_by("pk")
        return first, second

    first, second = twice("shop/sync.wanted", account=7)
    assert (first.status, second.status) == ("waiting", "skipped")
    assert second.reason == f"singleton: run {first.pk} is live for key 7."
    first, second = twice("shop/draft.saved", draft=7)
    assert (first.status, second.status) == ("cancelled", "waiting")
    assert first.reason == f"singleton: replaced by run {second.pk}."
    first, second = twice("shop/day.ended")
    assert (first.status, second.status) == ("waiting", "queued")
    kit.advance("1h")
    second.refresh_from_db()
    assert second.status == "waiting"
