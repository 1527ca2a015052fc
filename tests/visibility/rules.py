"""Rules for visible runs, as a project writes them."""

from __future__ import annotations

from typing import Any

from project.shop.models import Order

RULE = f"{__name__}.of_tenant"


def of_tenant(who: Any, runs: Any) -> Any:
    """Return the runs about orders of the viewer's tenant; the two share a name."""
    if getattr(who.user, "is_superuser", False):
        return runs
    orders = Order.objects.filter(tenant__name=who.user.username)
    keys = [str(key) for key in orders.values_list("pk", flat=True)]
    return runs.filter(subjects__model="shop.order", subjects__object_pk__in=keys)


def raises(who: Any, runs: Any) -> Any:
    """Fail."""
    raise ZeroDivisionError("the rule")


def gives_a_list(who: Any, runs: Any) -> Any:
    """Return a list, which cannot be filtered."""
    return list(runs)


def gives_nothing(who: Any, runs: Any) -> None:
    """Return None, as a forgotten return does."""


def gives_others(who: Any, runs: Any) -> Any:
    """Return rows of another model."""
    return Order.objects.all()
