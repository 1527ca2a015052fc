"""What the transaction of an ``atomic`` step, or of a caller, does not cover."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connections, transaction
from django.db.utils import load_backend

from durable_jobs import durable
from tests.engine.conftest import Start

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other() -> Iterator[str]:
    """Yield the alias of a second database, with one table."""
    made = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    values = connections.configure_settings({"default": {}, "other": made})["other"]
    connection = load_backend(values["ENGINE"]).DatabaseWrapper(values, "other")
    connection.connect()  # before the test's guard knows of the alias
    connections.settings["other"], connections["other"] = values, connection
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE stock (name text)")
    yield "other"
    connection.connection.close()
    del connections["other"]
    del connections.settings["other"]


def write(alias: str) -> str:
    """Write a row to the second database."""
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO stock VALUES ('pear')")
    return "written"


def rows(alias: str) -> int:
    """Count the rows of the second database."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM stock")
        return int(cursor.fetchone()[0])


def test_atomic_body_that_writes_to_another_database_is_refused(
    start: Start, other: str
):
    def writing(ctx):
        ctx.step.atomic("write", write, other)

    run = start(writing)

    assert run.error["type"] == "ConfigurationError"
    assert "'write'" in run.error["message"]
    assert "using='other'" in run.error["message"]
    assert rows(other) == 0
    write(other)
    assert rows(other) == 1


def test_atomic_body_may_read_another_database(start: Start, other: str):
    def reading(ctx):
        return ctx.step.atomic("read", rows, other)

    assert start(reading).result() == 0


def test_atomic_body_may_write_where_using_says_so(start: Start, other: str):
    def writing(ctx):
        return ctx.step.atomic("write", write, other, using=other)

    assert start(writing).result() == "written"
    assert rows(other) == 1


def test_run_is_not_awaited_in_the_transaction_that_made_it(durable_kit):
    @durable.function(id="tests.waited_for")
    def waited_for(ctx):
        return 1

    with transaction.atomic():
        run = waited_for.enqueue()
        with pytest.raises(durable.ConfigurationError, match="ATOMIC_REQUESTS"):
            run.wait()
    assert run.wait().result() == 1


def test_run_made_before_is_waited_for_in_a_transaction(durable_kit):
    @durable.function(id="tests.waited_for")
    def waited_for(ctx):
        return 1

    run = waited_for.enqueue()
    durable_kit.run_until_idle()
    with transaction.atomic():
        assert run.wait().result() == 1
