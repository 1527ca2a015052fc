"""Declaring an app and its functions: invalid declarations are refused at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from pytest_django import Settings

from durable_jobs import durable, remote
from durable_jobs.definitions.registry import registry
from durable_jobs.remote.apps import check_apps
from durable_jobs.testing import Kit

URL = "https://billing.example/api/inngest"


def test_function_is_like_any_other(kit: Kit):
    app = remote.App("billing", URL, signing_key="signkey-prod-00")

    made = app.function(
        "charge-card",
        on=durable.Event("shop/order.placed"),
        retries=2,
        concurrency=durable.Concurrency(5, key="event.data.shop"),
    )

    assert registry.get("billing-charge-card") is made
    assert (made.name, made.is_async, made.retries) == ("Charge card", True, 2)
    assert made.description == "Served by the app 'billing'."
    assert app.limit == timedelta(minutes=5)


def test_module_imported_again_declares_it_again(kit: Kit):
    for _ in range(2):
        remote.App("billing", URL, signing_key="signkey-prod-00").function("charge")

    with pytest.raises(durable.ConfigurationError, match=__name__):
        remote.App("billing", "https://other.example/", None).function("charge")


@pytest.mark.parametrize(
    "url",
    [
        "billing.example/api",
        "ftp://billing.example/",
        "https:///api",
        "https://user:hunter2@billing.example/",
        "https://billing.example/?token=hunter2",
        "https://billing.example/#hunter2",
        "https://billing.example:hunter2/",
        "https://billing.example:0/",
        "https://billing.exa mple/hunter2",
        "https://billing.example/\nhunter2",
        "https://[hunter2/",
        None,
    ],
)
def test_invalid_address_is_refused_and_not_shown(url: Any):
    with pytest.raises(durable.ConfigurationError) as refused:
        remote.App("billing", url)

    assert "app 'billing'" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"id": "no spaces"}, "letters and digits"),
        ({"id": ""}, "1 to 255 characters"),
        ({"timeout": 0}, "more than zero"),
        ({"timeout": "3h"}, "two hours"),
        ({"timeout": "soon"}, "soon"),
        ({"signing_key": ""}, "secret"),
    ],
)
def test_invalid_declaration_is_refused(wrong: dict[str, Any], message: str):
    with pytest.raises(durable.ConfigurationError, match=message):
        remote.App(**{"id": "billing", "url": URL, **wrong})


@pytest.mark.parametrize("id", ["", "a b", "a/b", "-a", 7])
def test_id_of_a_function_is_valid_for_an_sdk(kit: Kit, id: Any):
    with pytest.raises(durable.ConfigurationError, match="the id of a function"):
        remote.App("billing", URL).function(id)


def found(**options: Any) -> list[str | None]:
    """Return the messages of a deploy check about an app."""
    remote.App(**{"id": "billing", "url": URL, **options}).function("charge")
    return told()


def told() -> list[str | None]:
    """Return the messages about the app; the lab has one of its own."""
    return [message.id for message in check_apps() if "'billing'" in message.msg]


def test_app_that_is_signed_and_encrypted_is_in_order(kit: Kit):
    assert found(signing_key="signkey-prod-00") == []


def test_unsigned_responses_are_reported_before_a_deploy(kit: Kit):
    options = {"signing_key": "signkey-prod-00", "unsigned_responses": True}
    assert found(**options) == ["durable_jobs.W006"]


def test_app_without_https_and_key_is_reported_before_a_deploy(kit: Kit):
    assert found(url="HTTP://billing/") == ["durable_jobs.W003", "durable_jobs.W004"]
    registered = checks.registry.registry.get_checks(include_deployment_checks=True)
    assert check_apps in registered


def test_key_missing_in_the_settings_is_reported(kit: Kit, settings: Settings):
    key = durable.verify.Setting("BILLING_KEY")
    assert found(signing_key=key) == ["durable_jobs.E004"]

    settings.BILLING_KEY = ["signkey-prod-11", "signkey-prod-00"]
    assert told() == []
