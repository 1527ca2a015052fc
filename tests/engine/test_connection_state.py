"""Changes of a body or function to its database connection end with it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection, transaction

from durable_jobs import durable
from durable_jobs.testing import Kit
from project.shop.models import Tenant
from tests.engine.conftest import Later, Start

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.exact("it counts calls of the body"),
]

SOON = durable.Backoff.fixed("1s")


def begin() -> None:
    """Begin a transaction in a cursor and write in it.

    The write uses SQL: an ORM write that starts runs refuses such a transaction.
    """
    table = connection.ops.quote_name(Tenant._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"INSERT INTO {table} (name) VALUES ('never committed')")  # noqa: S608  # of our own model


def switch_off() -> None:
    """Switch autocommit off and write."""
    transaction.set_autocommit(False)
    Tenant.objects.create(name="never committed")


def enter() -> None:
    """Enter an atomic block, write in it, and never leave it."""
    transaction.atomic().__enter__()
    Tenant.objects.create(name="never committed")


LEAVING = {"BEGIN": begin, "set_autocommit": switch_off, "atomic": enter}
leaving = pytest.mark.parametrize("how", LEAVING)


def untouched() -> bool:
    """Return whether the connection is as new, and nothing was written."""
    assert connection.get_autocommit()
    assert not connection.in_atomic_block
    with transaction.atomic():  # a nested block would not commit
        assert len(connection.atomic_blocks) == 1
    return not Tenant.objects.filter(name="never committed").exists()


@leaving
def test_body_that_leaves_a_transaction_open_fails_with_its_name(
    start: Start, later: Later, how
):
    calls: list[int] = []

    def body() -> str:
        calls.append(1)
        LEAVING[how]()
        return "left"

    def opening(ctx):
        ctx.step.run("leave it open", body)

    run = later(start(opening, retries=1, backoff=SOON), "1m")

    assert run.status == "failed"
    assert run.error["type"] == "TransactionStateError"
    assert "'leave it open'" in run.error["message"]
    assert "'default'" in run.error["message"]
    assert len(calls) == 2
    assert untouched()


@leaving
def test_runs_after_a_body_that_left_a_transaction_open_are_not_affected(
    start: Start, later: Later, how
):
    def opening(ctx):
        ctx.step.run("leave it open", LEAVING[how])

    def writing(ctx):
        ctx.step.run("write", lambda: Tenant.objects.create(name="kept").pk)
        ctx.step.atomic("write too", lambda: Tenant.objects.create(name="kept 2").pk)

    start(opening, retries=0)
    run = start(writing)

    assert run.status == "completed"
    assert untouched()
    assert Tenant.objects.filter(name__startswith="kept").count() == 2


def test_error_of_the_body_stays_its_error(start: Start):
    def body() -> None:
        begin()
        raise ValueError("it is broken")

    def opening(ctx):
        ctx.step.run("break", body)

    run = start(opening, retries=0)

    assert run.error["type"] == "ValueError"
    assert untouched()


@leaving
def test_body_with_a_timeout_that_leaves_a_transaction_open_fails(start: Start, how):
    def opening(ctx):
        ctx.step.run("leave it open", LEAVING[how], timeout="1m")

    run = start(opening, retries=0)

    assert run.error["type"] == "TransactionStateError"
    assert untouched()


@leaving
def test_branch_that_leaves_a_transaction_open_fails(start: Start, how):
    def opening(ctx):
        ctx.step.parallel(
            "both",
            [
                lambda: ctx.step.run("write", lambda: 1),
                lambda: ctx.step.run("leave it open", LEAVING[how]),
            ],
        )

    run = start(opening, retries=0)

    assert run.status == "failed"
    assert "'leave it open'" in run.error["message"]
    assert run.steps.get(name="write").status == "completed"
    assert untouched()


@leaving
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_async_body_that_leaves_a_transaction_open_fails(start: Start, how, kind):
    async def body() -> None:
        await sync_to_async(LEAVING[how])()

    async def opening(ctx):
        await ctx.step.run("leave it open", LEAVING[how] if kind == "def" else body)

    run = start(opening, retries=0)

    assert run.error["type"] == "TransactionStateError"
    assert "'leave it open'" in run.error["message"] or kind == "async def"
    assert untouched()


@leaving
def test_function_that_leaves_a_transaction_open_fails_with_its_name(start: Start, how):
    def opening(ctx):
        ctx.step.run("work", lambda: 1)
        LEAVING[how]()

    run = start(opening, retries=0)

    assert run.error["type"] == "TransactionStateError"
    assert "'tests.opening'" in run.error["message"]
    assert untouched()


@leaving
def test_async_function_that_leaves_a_transaction_open_fails(start: Start, how):
    async def opening(ctx):
        await ctx.step.run("work", lambda: 1)
        await sync_to_async(LEAVING[how])()
        await ctx.step.run("work on", lambda: 2)

    run = start(opening, retries=0)

    assert run.error["type"] == "TransactionStateError"
    assert not run.steps.filter(name="work on").exists()
    assert untouched()


@leaving
def test_step_is_refused_in_a_transaction_that_is_open(start: Start, how):
    calls: list[int] = []

    def inside(ctx):
        LEAVING[how]()
        ctx.step.run("work", calls.append, 1)

    run = start(inside, retries=0)

    assert run.error["type"] == "ConfigurationError"
    assert "BEGIN" in run.error["message"]
    assert calls == []
    assert untouched()


# Atomic bodies


def swallow() -> None:
    """Ignore an error of a statement."""
    Tenant.objects.create(name="never committed")
    with contextlib.suppress(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM auth_user")


def swallow_in_a_block() -> None:
    """Ignore an error of a statement in a block without a savepoint."""
    Tenant.objects.create(name="never committed")
    with contextlib.suppress(DatabaseError), transaction.atomic(savepoint=False):
        execute("SELECT no_such_column FROM auth_user")


def commit() -> None:
    """Commit the engine's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("COMMIT")


def roll_back() -> None:
    """Roll back the engine's transaction."""
    Tenant.objects.create(name="never committed")
    with connection.cursor() as cursor:
        cursor.execute("ROLLBACK")


def close() -> None:
    """Close the connection of the engine's transaction."""
    connection.close()


BREAKING: dict[str, Any] = {
    "an error is swallowed": swallow,
    "an error in a block is swallowed": swallow_in_a_block,
    "it commits": commit,
    "it rolls back": roll_back,
    "it closes the connection": close,
    "it leaves a block open": enter,
}


@pytest.mark.parametrize("how", BREAKING)
def test_atomic_body_that_breaks_its_transaction_fails_after_its_retries(
    start: Start, later: Later, how
):
    if connection.vendor != "postgresql" and how == "an error is swallowed":
        pytest.skip("only PostgreSQL aborts the transaction")
    if connection.vendor == "sqlite" and how == "it closes the connection":
        pytest.skip("a database in memory is never closed")
    calls: list[int] = []

    def body() -> None:
        calls.append(1)
        BREAKING[how]()

    def booking(ctx):
        ctx.step.atomic("book", body)

    run = later(start(booking, retries=2, backoff=SOON), "5m")

    assert (run.status, len(calls)) == ("failed", 3)
    assert run.error["type"] == "TransactionStateError"
    assert "'book'" in run.error["message"]
    assert run.attempts.count() == 2
    assert run.database_errors == 0
    assert untouched()


def test_error_in_a_savepoint_is_the_atomic_bodys_own_affair(start: Start):
    def body() -> str:
        with contextlib.suppress(DatabaseError), transaction.atomic():
            execute("SELECT no_such_column FROM auth_user")
        return "went on"

    def booking(ctx):
        return ctx.step.atomic("book", body)

    assert start(booking).result() == "went on"


# The session

SESSION = {
    "a setting": "SET statement_timeout = '7s'",
    "several statements": "SELECT 1; SET lock_timeout = '7s'",
    "a function": "SELECT set_config('statement_timeout', '7s', false)",
    "the search path": "SET search_path TO pg_catalog",
    "read-only": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "a block": "DO $$ BEGIN PERFORM set_config('lock_timeout', '7s', false); END $$",
    "a lock": "SELECT pg_advisory_lock(4711)",
    "a temporary table": "CREATE TEMPORARY TABLE left_behind (id int)",
    "a role": "SET ROLE pg_monitor",
}
STATE = """
SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
    current_setting('search_path'), current_setting('default_transaction_read_only'),
    current_user, current_setting('TimeZone'),
    (SELECT count(*) FROM pg_locks
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    to_regclass('pg_temp.left_behind')
"""


def session() -> tuple[Any, ...]:
    """Return the session settings that a body could have changed."""
    with connection.cursor() as cursor:
        cursor.execute(STATE)
        row: tuple[Any, ...] = cursor.fetchone()
        return row


def execute(statement: str) -> None:
    """Execute a statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


postgres_only = pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="sessions of PostgreSQL"
)


@postgres_only
@pytest.mark.parametrize("where", ["run", "atomic", "function"])
@pytest.mark.parametrize("what", SESSION)
def test_change_of_the_session_ends_with_its_body(start: Start, what, where):
    before = session()
    seen: list[Any] = []

    def changing(ctx):
        if where == "run":
            ctx.step.run("change", execute, SESSION[what])
        elif where == "atomic":
            ctx.step.atomic("change", execute, SESSION[what])
        else:
            execute(SESSION[what])
            return
        seen.append(session())

    assert start(changing, retries=0).status == "completed"
    assert session() == before
    assert all(one == before for one in seen)


@postgres_only
def test_change_that_ends_with_its_transaction_costs_no_new_connection(start: Start):
    def backend() -> int:
        return int(connection.connection.info.backend_pid)

    def local() -> None:
        with transaction.atomic():
            execute("SET LOCAL statement_timeout = '7s'")
            execute("SELECT set_config('lock_timeout', '7s', true)")
            execute("SELECT pg_advisory_xact_lock(4711)")

    def changing(ctx):
        ctx.step.run("change", local)

    connection.ensure_connection()
    before = backend()
    start(changing)
    assert backend() == before


@postgres_only
def test_change_past_djangos_cursor_ends_with_the_attempt(start: Start):
    before = session()

    def change() -> None:
        connection.connection.execute("SET TimeZone TO 'Asia/Tokyo'")

    def changing(ctx):
        ctx.step.run("change", change)

    start(changing)
    assert session() == before


# Database errors that are not the body's


@postgres_only
def test_attempts_that_meet_database_errors_for_ever_are_counted(
    start: Start, later: Later, durable_kit: Kit, configure
):
    configure(MAX_DATABASE_ERRORS=4)
    calls: list[int] = []

    def kill() -> None:
        calls.append(1)
        pid = connection.connection.info.backend_pid
        with contextlib.suppress(DatabaseError):
            execute(f"SELECT pg_terminate_backend({pid})")

    def killing(ctx):
        ctx.step.atomic("kill", kill)

    run = start(killing, retries=9)
    assert (run.status, run.database_errors) == ("queued", 1)

    run = later(run, "1m")
    assert (run.status, len(calls)) == ("failed", 4)
    assert "MAX_DATABASE_ERRORS" in run.error["message"]
    assert run.error["type"] == "OperationalError"
    assert untouched()

    assert run.redrive()
    run = later(run, "2s")
    assert (run.status, run.database_errors) == ("queued", 2)
    assert len(calls) == 6


@postgres_only
def test_attempt_with_progress_resets_the_count_of_database_errors(
    start: Start, later: Later, configure
):
    configure(MAX_DATABASE_ERRORS=3, ALWAYS_SUSPEND=False)
    killed: set[int] = set()

    def work(number: int) -> int:
        if number not in killed:
            killed.add(number)
            pid = connection.connection.info.backend_pid
            with contextlib.suppress(DatabaseError):
                execute(f"SELECT pg_terminate_backend({pid})")
        return number

    def working(ctx):
        return [ctx.step.atomic(f"work {n}", work, n) for n in range(8)]

    run = later(start(working), "10m")
    assert run.result() == list(range(8))


def test_execute_wrapper_of_your_project_ends_with_its_block(start: Start):
    """The engine adds a wrapper of its own to the connection inside the block."""
    connection.execute_wrappers.clear()
    statements: list[str] = []

    def note(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        run = start(lambda ctx: ctx.step.run("body", lambda: 1))
    assert run.result() == 1
    assert statements
    assert note not in connection.execute_wrappers
    assert len(connection.execute_wrappers) == 1
