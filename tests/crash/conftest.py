"""The lab, and what must hold after every test in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from durable_jobs.models import Run, Wait
from tests.lab.models import Account
from tests.lab.processes import Lab
from tests.lab.processes import lab as opened


@pytest.fixture
def lab(process_environment: dict[str, str]) -> Iterator[Lab]:
    """Give a lab on the test's own database and an empty broker."""
    if connection.vendor != "postgresql":
        pytest.skip("real workers are tested on the database of record")
    flush_broker(process_environment)
    Account.objects.create(name="ledger")
    with opened(process_environment) as made:
        yield made
    ended = Run.objects.filter(ended_at__isnull=False)
    assert not Wait.objects.filter(run__in=ended).exists(), "an ended run still waits"
    assert not ended.filter(lease_token__isnull=False).exists(), "an ended run is held"


def flush_broker(environment: dict[str, str]) -> None:
    """Throw away all messages."""
    from kombu import Connection

    with Connection(environment["BROKER_URL"]) as broker:
        channel: Any = broker.default_channel
        channel.client.flushdb()
