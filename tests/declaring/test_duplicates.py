"""A second function with the same id is an error where it is declared."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit

MODULE = """
from durable_jobs import durable

@durable.function
def handle(ctx):
    return 1
"""


def imported(source: str, module: ModuleType | None = None) -> ModuleType:
    """Execute a module's source, in the existing module on a reload."""
    made = module or ModuleType("billing")
    exec(compile(source, "billing.py", "exec"), made.__dict__)  # noqa: S102  # our own text
    return made


def test_id_can_be_taken_once(durable_kit: Kit) -> None:
    def declared() -> Callable[[Any], Any]:
        def body(ctx):
            pass

        return body

    durable.function(id="shop.pay")(declared())
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="shop.pay")(declared())
    message = str(caught.value)
    assert "'shop.pay'" in message
    assert __name__ in message
    assert "another id" in message


def test_same_name_twice_in_a_module_is_found(durable_kit: Kit) -> None:
    twice = MODULE + "\n@durable.function\ndef handle(ctx):\n    return 2\n"
    with pytest.raises(durable.ConfigurationError, match=r"'billing\.handle'"):
        imported(twice)


def test_same_name_twice_is_found_below_other_decorators(durable_kit: Kit) -> None:
    one = "@durable.function\n@logged\ndef handle(ctx):\n    return {}\n"
    source = f"""
import functools
from durable_jobs import durable

def logged(fn):
    @functools.wraps(fn)
    def around(ctx):
        return fn(ctx)
    return around

{one}
{one}
"""
    with pytest.raises(durable.ConfigurationError, match=r"'billing\.handle'"):
        imported(source)


def test_callable_objects_cannot_share_an_id_either(durable_kit: Kit) -> None:
    class Body:
        def __call__(self, ctx):
            pass

    durable.function(id="shop.object")(Body())
    with pytest.raises(durable.ConfigurationError, match=r"shop\.object"):
        durable.function(id="shop.object")(Body())


def test_module_may_be_reloaded(durable_kit: Kit) -> None:
    module = imported(MODULE)
    imported(MODULE, module)
    imported(MODULE.replace("return 1", "return 2"))
    assert module.handle(None) == 1


def test_handler_takes_an_id_too(durable_kit: Kit) -> None:
    @durable.function(id="shop.pay:on_failure")
    def taken(ctx):
        pass

    with pytest.raises(durable.ConfigurationError, match=r"shop\.pay:on_failure"):

        @durable.function(id="shop.pay", on_failure=lambda ctx: None)
        def pay(ctx):
            pass


def test_first_declaration_remains_when_the_second_is_refused(
    durable_kit: Kit,
) -> None:
    @durable.function(id="shop.pay")
    def pay(ctx):
        return "first"

    def other(ctx):
        return "second"

    with pytest.raises(durable.ConfigurationError):
        durable.function(id="shop.pay")(other)
    assert pay.enqueue().wait(timeout=10).result() == "first"
