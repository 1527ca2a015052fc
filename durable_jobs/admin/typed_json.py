"""Decode payloads that users type as JSON, with tags and references.

The pages show stored payloads with the codec's tags, so edited payloads contain tags.
Typed JSON creates no instances of classes. It refers only to rows that the user sees in
the admin of the row's model.
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from django import forms
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import Model

from durable_jobs.admin.forms import JSONText
from durable_jobs.admin.links import Links
from durable_jobs.exceptions import DurableError, LimitExceeded
from durable_jobs.project_code import contained, may_view
from durable_jobs.serialization.references import Reference
from durable_jobs.serialization.typed_json import from_typed

logger = logging.getLogger("durable_jobs")

#: References in one text. Each costs a query.
MOST = 100
Form = TypeVar("Form", bound=forms.Form)


class PayloadText(JSONText):
    """A payload as JSON. Tags are decoded after ``typed_by`` sets the user."""

    links: Links | None = None

    def clean(self, value: Any) -> Any:
        tree = super().clean(value)
        if self.links is None:
            return tree
        try:
            return from_typed(tree, _VisibleRows(self.links).find)
        except DurableError as error:
            raise forms.ValidationError(error.message) from None


def typed_by(form: Form, links: Links) -> Form:
    """Set the viewer of ``links`` as the user who typed the payloads of a form."""
    for field in form.fields.values():
        if isinstance(field, PayloadText):
            field.links = links
    return form


class _VisibleRows:
    """The rows that one text refers to and the viewer may see."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.known: dict[Reference, Any] = {}

    def find(self, reference: Reference) -> Any:
        """Return a row, or None if it is missing or hidden from the viewer."""
        if reference not in self.known:
            if len(self.known) >= MOST:
                msg = f"Expected a text with at most {MOST} references to objects."
                raise LimitExceeded(msg)
            self.known[reference] = self._find(reference)
        return self.known[reference]

    def _find(self, reference: Reference) -> Model | None:
        alias = reference.alias
        try:
            model = apps.get_model(reference.label)
        except (LookupError, ValueError):
            return None
        if not self.links.allowed(model) or alias not in {None, *connections}:
            return None
        model_admin = self.links.admin_of(model)
        try:
            with contained():
                key = model._meta.pk.to_python(reference.key)
                model._meta.pk.run_validators(key)
                rows = model_admin.get_queryset(self.links.request)
                rows = rows if alias is None else rows.using(alias)
                row: Model | None = rows.filter(pk=key).order_by().first()
        except (ValidationError, ValueError, TypeError, OverflowError):
            return None  # an invalid key of this model
        except Exception:
            label = model._meta.label
            logger.warning("The admin of %s failed.", label, exc_info=True)
            return None
        return row if row and may_view(model_admin, self.links.request, row) else None
