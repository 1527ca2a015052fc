"""What comes with other issues is a clear error, never silently ignored."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit


def test_a_name_that_is_to_come_says_so() -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        _ = durable.Webhook
    assert "durable.Webhook" in str(caught.value)
    assert "not in this version" in str(caught.value)


def test_a_name_that_nobody_promised_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="Concurency"):
        getattr(durable, "Concurency")  # noqa: B009  # a type checker knows it is not there
    assert not hasattr(durable, "enqueue")


@pytest.mark.parametrize("extra", [{"jitter": "5m"}, {"overlap": "skip"}])
def test_crons_have_no_jitter_and_no_overlap_yet(extra: dict[str, Any]) -> None:
    with pytest.raises(durable.ConfigurationError, match="not in this version"):
        durable.Cron("@hourly", **extra)


@pytest.mark.parametrize("step", ["approve", "fetch", "ai"])
def test_a_step_that_is_to_come_says_so(durable_kit: Kit, step: str) -> None:
    @durable.function(id="shop.ask", retries=0)
    def ask(ctx):
        getattr(ctx.step, step)("now")

    run = ask.enqueue().wait(timeout=10)
    assert run.status == "failed"
    assert run.error["type"] == "ConfigurationError"
    assert step in run.error["message"]
    assert "not in this version" in run.error["message"]
