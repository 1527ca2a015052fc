"""Runs that ask for an approval, with their forms."""

from __future__ import annotations

from typing import Any

from django import forms
from django.test import Client
from django.urls import reverse

from durable_jobs.models import Run
from tests.admin.conftest import Page
from tests.admin.test_escaping import EVIL

INBOX = reverse("admin:durable_jobs_approvals")
FIELDS = ("input", "textarea", "select", "button")


class PayForm(forms.Form):
    """A form with an amount and a reason."""

    amount = forms.DecimalField(max_value=100, help_text="in euros")
    reason = forms.CharField(required=False)


class EvilForm(forms.Form):
    """A form with markup wherever a form may have it."""

    evil = forms.CharField(label=EVIL, help_text="plain", initial=EVIL)

    def clean(self) -> Any:
        """Raise an error with markup."""
        raise forms.ValidationError(EVIL)

    def clean_evil(self) -> Any:
        """Raise a field error with markup."""
        raise forms.ValidationError(EVIL)


class DatedForm(forms.Form):
    """A form with its own script."""

    on = forms.DateField()

    class Media:
        js = ("shop/calendar.js",)


def place_of(run: Run) -> str:
    """Return the address of a run's approval."""
    return reverse("admin:durable_jobs_approval", args=[run.pk, run.steps.get().key])


def show(client: Client, address: str = INBOX) -> Page:
    response = client.get(address)
    assert response.status_code == 200, (address, response.status_code)
    return Page(response.content.decode())


def outcome(durable_kit, run: Run) -> Any:
    durable_kit.run_until_idle()
    run.refresh_from_db()
    return run.result()
