"""Fixtures of all the tests."""

from __future__ import annotations

import gc
import math
import os
import signal
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from django.db import connection, connections
from hypothesis import settings as hypothesis
from pytest_django import DjangoDbBlocker

from tests.packaging.installed import installed

__all__ = ["django_db_setup", "installed", "process_environment"]

# The first example of a test may have to connect to the database.
hypothesis.register_profile("default", deadline=None)
hypothesis.load_profile("default")

# A shell starts background processes with Ctrl-C ignored. Commands that tests start
# would inherit that, and tests end them by Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exempt permanent objects from garbage collection, and collect less often."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def django_db_setup(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Synchronize the clock once, and close our connections before the database."""
    # Imported late: it needs the settings.
    from durable_jobs import clock
    from durable_jobs.worker.background import background_thread
    from durable_jobs.worker.connections import persistent

    # A synchronization each minute would change counts of statements.
    clock.RESYNC_SECONDS = math.inf
    yield
    background_thread().stop()
    with django_db_blocker.unblock(), persistent():  # restores saved connections
        connections.close_all()
    gc.collect()  # an ended thread leaves its connection to the garbage collector


@pytest.fixture(scope="session", autouse=True)
def messages_in_tests() -> Iterator[None]:
    """Let this suite send messages to its broker, whatever settings a test makes."""
    from durable_jobs.worker import celery_notifier

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(celery_notifier, "_disabled", lambda: False)
        yield


@pytest.fixture
def process_environment(transactional_db: None) -> dict[str, str]:
    """Return the environment of a real worker, which uses the tests' own database."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        if "memory" in name:
            pytest.skip("other processes cannot open a database in memory")
        address = f"sqlite:///{quote(name)}"
    else:
        parts = urlsplit(os.environ["DATABASE_URL"])
        address = parts._replace(path=f"/{quote(name)}").geturl()
    return {**os.environ, "DATABASE_URL": address}
