"""An invalid webhook trigger is refused when its module is imported."""

from __future__ import annotations

import types
from typing import Any

import pytest
from django.core.checks import run_checks

from durable_jobs import durable
from durable_jobs.testing import Kit

GITHUB = durable.verify.GitHub("hush")


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "a//b", "A", "a b", "..", "a/../b", ".a", "a?b", "a%20b", "ä",
     "a\n", "<a>", "{a}", None, 7, "a" * 151],
)  # fmt: skip
def test_invalid_path_is_refused(path: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="expected a path"):
        durable.Webhook(path, verify=GITHUB)


@pytest.mark.parametrize(
    "path", ["a", "stripe", "shop/order.paid", "a-b_c/1/2", "v1.0"]
)
def test_paths(path: str) -> None:
    assert durable.Webhook(path, verify=GITHUB).event == f"webhook/{path}"


def test_trigger_without_a_scheme_is_refused() -> None:
    with pytest.raises(durable.ConfigurationError, match=r"verify\.Unsigned\(\)"):
        durable.Webhook("acme")
    with pytest.raises(durable.ConfigurationError, match=r"verify\.Unsigned\(\)"):
        durable.Webhook("acme", verify=None)
    durable.Webhook("acme", verify=durable.verify.Unsigned())


async def a_coroutine(*args: Any) -> bool:
    return True


@pytest.mark.parametrize("value", [True, "secret", 7, a_coroutine])
def test_scheme_must_be_a_scheme_or_a_callable(value: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="verify to be a scheme"):
        durable.Webhook("acme", verify=value)
    with pytest.raises(durable.ConfigurationError, match="transform"):
        durable.Webhook("acme", verify=GITHUB, transform=value)


def test_scheme_class_without_a_call_is_refused() -> None:
    with pytest.raises(durable.ConfigurationError, match=r"Stripe\(…\)"):
        durable.Webhook("acme", verify=durable.verify.Stripe)


@pytest.mark.parametrize(
    "mapping",
    [{}, {"nmae": "a"}, {"name": "{bodi.x}"}, {"data": {"a": ["{headers.a b}"]}},
     {"name": "{}"}, {"id": "{body..x}"}],
)  # fmt: skip
def test_mapping_that_cannot_be_read_is_refused(mapping: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="expected"):
        durable.Webhook("acme", verify=GITHUB, transform=mapping)


def declare(id: str, **options: Any) -> None:
    options.setdefault("verify", durable.verify.GitHub("hush"))
    durable.function(id=id, on=durable.Webhook("acme", **options))(lambda ctx: None)


def first(body: Any, headers: Any) -> None:
    """Ignore all arguments."""


def test_functions_of_one_path_must_agree(durable_kit: Kit) -> None:
    declare("one", transform=first)
    declare("two", transform=first)
    for options in (
        {"verify": durable.verify.GitHub("other"), "transform": first},
        {"verify": durable.verify.Slack("hush"), "transform": first},
        {"transform": None},
        {"transform": lambda body, headers: None},
        {"transform": {"name": "a"}},
    ):
        with pytest.raises(durable.ConfigurationError, match=r"'three'.*of 'one'"):
            declare("three", **options)


def test_module_imported_again_agrees_with_itself(durable_kit: Kit) -> None:
    source = (
        "from durable_jobs import durable\n"
        "def change(body, headers): return None\n"
        "for name in ('one', 'two'):\n"
        "    hook = durable.Webhook('acme', durable.verify.GitHub('hush'), change)\n"
        "    @durable.function(id=name, on=hook)\n"
        "    def hooked(ctx): pass\n"
    )
    for _ in range(2):
        module = types.ModuleType("again")
        exec(source, module.__dict__)  # noqa: S102  # our own text


def test_message_names_the_function(durable_kit: Kit) -> None:
    with pytest.raises(durable.ConfigurationError, match="Event or Cron or"):
        durable.function(id="a", on="acme")(lambda ctx: None)


def test_secret_that_is_in_no_setting_is_found_by_the_checks(
    durable_kit: Kit, settings: Any
) -> None:
    declare("one", verify=durable.verify.Stripe(durable.verify.Setting("STRIPE_KEY")))
    (problem,) = [one for one in run_checks() if one.id == "durable_jobs.E003"]
    assert "STRIPE_KEY" in problem.msg
    settings.STRIPE_KEY = ["new", "old"]
    assert not [one for one in run_checks() if one.id == "durable_jobs.E003"]
