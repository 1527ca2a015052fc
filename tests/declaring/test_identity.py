"""The id of a declaration, and what it keeps of its body."""

from __future__ import annotations

import dataclasses

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit


def test_function_is_a_frozen_declaration(durable_kit: Kit) -> None:
    @durable.function(id="shop.pack", version="2024-1", queue="slow", retries=7)
    def pack_order(ctx):
        """Pack an order."""

    assert isinstance(pack_order, durable.Function)
    assert pack_order.id == "shop.pack"
    assert (pack_order.version, pack_order.queue) == ("2024-1", "slow")
    assert pack_order.retries == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        pack_order.retries = 0


def test_defaults_are_the_documented_ones(durable_kit: Kit) -> None:
    @durable.function
    def ship(ctx):
        pass

    assert ship.retries == 4
    assert ship.queue == "default"
    assert ship.version == ""
    assert ship.triggers == ()
    assert ship.cancel_on == ()
    assert ship.timeouts == durable.Timeouts()
    assert ship.handlers == []
    assert ship.backoff == durable.Backoff.exponential("15s", 2, "2h", "30s")


def test_name_and_description_come_from_the_code(durable_kit: Kit) -> None:
    @durable.function(id="one")
    def fulfil_order(ctx):
        """Bring an order to its end.

        In several steps.
        """

    @durable.function(id="two", name="Fulfilment", description="What it does")
    def other(ctx):
        """Say something else."""

    assert fulfil_order.name == "Fulfil order"
    assert fulfil_order.description == "Bring an order to its end.\n\nIn several steps."
    assert (other.name, other.description) == ("Fulfilment", "What it does")


def test_default_id_is_the_last_part_of_a_module_outside_of_apps(
    durable_kit: Kit,
) -> None:
    @durable.function
    def nightly(ctx):
        pass

    assert nightly.id == "test_identity.nightly"


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        # An app's label may differ from its package's name.
        ("project.shop.durable", "shop.refund"),
        ("project.shop.durable.orders", "shop.refund"),
        ("tests.lab.durable", "lab.refund"),
        ("django.contrib.auth.durable", "auth.refund"),
        # No installed app: the path decides.
        ("elsewhere.billing.durable", "billing.refund"),
        ("billing", "billing.refund"),
    ],
)
def test_default_id_begins_with_the_label_of_the_app(
    durable_kit: Kit, module: str, expected: str
) -> None:
    def refund(ctx):
        pass

    refund.__module__ = module
    assert durable.function(refund).id == expected


def test_function_can_be_called_as_its_body(durable_kit: Kit) -> None:
    @durable.function
    def double(ctx):
        return 2 * ctx

    assert double(21) == 42


def test_def_and_async_def_are_both_functions(durable_kit: Kit) -> None:
    @durable.function(id="plain")
    def plain(ctx):
        pass

    @durable.function(id="coloured")
    async def coloured(ctx):
        pass

    assert (plain.is_async, coloured.is_async) == (False, True)


def test_handlers_become_functions_of_their_own(durable_kit: Kit) -> None:
    def mourn(ctx):
        """Tell somebody."""

    @durable.function(id="shared")
    def celebrate(ctx):
        pass

    @durable.function(
        id="shop.pay",
        on_failure=mourn,
        on_complete=celebrate,
        queue="money",
        retries=2,
        version="7",
    )
    def pay(ctx):
        pass

    assert isinstance(pay.on_failure, durable.Function)
    assert pay.on_failure.id == "shop.pay:on_failure"
    assert pay.on_failure.description == "Tell somebody."
    assert (pay.on_failure.queue, pay.on_failure.retries) == ("money", 2)
    assert pay.on_failure.version == "7"
    assert pay.on_complete is celebrate
    assert pay.on_cancel is None


def test_run_keeps_its_version_and_queue(
    durable_kit: Kit,
) -> None:
    @durable.function(id="shop.pack", version="2024-1", queue="slow")
    def pack(ctx):
        return "packed"

    run = pack.enqueue()
    assert (run.version, run.queue) == ("2024-1", "slow")
    assert run.wait(timeout=10).result() == "packed"
