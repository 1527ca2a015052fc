"""``durable`` can be imported before Django's app registry is ready."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def output_of(code: str) -> str:
    """Run code in a Python without Django settings, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={},
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_functions_can_be_declared_without_django() -> None:
    printed = output_of(
        """
        from datetime import timedelta
        from durable_jobs import durable

        @durable.function(
            id="shop.pay",
            on=[
                durable.Event("shop/order.placed", if_="event.data.total > 0"),
                durable.Cron("@hourly", tz="Europe/Paris"),
                durable.ModelChange("shop.Order", created=True),
            ],
            cancel_on=durable.CancelOn("shop/stop", match="data.order_id"),
            timeouts=durable.Timeouts(finish=timedelta(hours=1)),
            subject=durable.Subject("shop.Order", "event.data.order_id"),
            on_failure=lambda ctx: None,
        )
        def pay(ctx: durable.Context) -> None:
            ctx.step.sleep("a while", 1)

        @durable.step
        def plain(number):
            return number + 1

        from django.apps import apps
        assert not apps.apps_ready
        print(pay.id, plain(1), pay.using(key="k", run_after="1h").options.key)
        """
    )
    assert printed.split() == ["shop.pay", "2", "k"]


def test_start_before_the_setup_says_what_is_missing() -> None:
    printed = output_of(
        """
        from durable_jobs import durable
        pay = durable.function(id="shop.pay")(lambda ctx: None)
        for start in (lambda: durable.send("a/b"), pay.enqueue):
            try:
                start()
            except durable.ConfigurationError as error:
                print(error)
        """
    )
    assert printed.count("not ready") == 2
    assert "INSTALLED_APPS" in printed
