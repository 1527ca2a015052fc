"""Names of later releases raise a clear error and are never silently ignored."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit


def test_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="Concurency"):
        getattr(durable, "Concurency")  # noqa: B009  # the attribute is absent for a type checker
    assert not hasattr(durable, "enqueue")


@pytest.mark.parametrize("step", ["fetch", "ai"])
def test_future_step_raises_a_clear_error(durable_kit: Kit, step: str) -> None:
    @durable.function(id="shop.ask", retries=0)
    def ask(ctx):
        getattr(ctx.step, step)("now")

    run = ask.enqueue().wait(timeout=10)
    assert run.status == "failed"
    assert run.error["type"] == "ConfigurationError"
    assert step in run.error["message"]
    assert "not in this version" in run.error["message"]
