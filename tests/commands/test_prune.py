"""``durable_prune``."""

from __future__ import annotations

import pytest
from django.core.management import CommandError

from durable_jobs import durable
from durable_jobs.models import Event, Run, Step

pytestmark = pytest.mark.django_db


@pytest.fixture
def history(durable_kit):
    """Create seven ended runs with their events, and one that sleeps for a year."""

    @durable.function(id="t.short", on=durable.Event("t/short"))
    def short(ctx):
        ctx.step.run("only", lambda: 1)

    @durable.function(id="t.long")
    def long(ctx):
        ctx.step.sleep("year", "365d")

    for _ in range(7):
        durable_kit.send("t/short")
    long.enqueue()
    durable_kit.run_until_idle()


def test_prune_deletes_in_batches_until_nothing_is_left(durable_kit, history, call):
    durable_kit.advance("31d", run=False)
    assert call("durable_prune", "--batch", 2) == "Deleted 14 runs, events and keys.\n"
    assert Run.objects.get().function == "t.long"
    assert Step.objects.get().name == "year"
    assert not Event.objects.exists()
    assert call("durable_prune") == "Deleted 0 runs, events and keys.\n"


def test_rows_within_their_retention_remain(durable_kit, history, call):
    durable_kit.advance("29d", run=False)
    assert call("durable_prune") == "Deleted 0 runs, events and keys.\n"
    assert Run.objects.count() == 8


def test_batch_below_one_is_refused(durable_kit, call):
    with pytest.raises(CommandError, match="1 or more"):
        call("durable_prune", "--batch", 0)
