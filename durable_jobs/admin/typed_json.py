"""JSON that people type: its tags are read, and its references by what they may view.

The pages show stored payloads with the codec's tags, so a person who changes one types
tags. What is typed is data: it makes no instance of a class, and it reaches a row only
through the admin of its model, as the viewer sees it there.
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

#: References in one text: each is a query.
MOST = 100
Form = TypeVar("Form", bound=forms.Form)


class PayloadText(JSONText):
    """A payload as JSON. Its tags are read where ``typed_by`` has said who types."""

    links: Links | None = None

    def clean(self, value: Any) -> Any:
        """Return the payload."""
        tree = super().clean(value)
        if self.links is None:
            return tree
        try:
            return from_typed(tree, _Rows(self.links).find)
        except DurableError as error:
            raise forms.ValidationError(error.message) from None


def typed_by(form: Form, links: Links) -> Form:
    """Let the payloads of a form be read as the viewer of ``links`` types them."""
    for field in form.fields.values():
        if isinstance(field, PayloadText):
            field.links = links
    return form


class _Rows:
    """The rows that one text refers to, as one viewer may see them."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.known: dict[Reference, Any] = {}

    def find(self, reference: Reference) -> Any:
        """Return a row; None for one that is not there, or not for the viewer."""
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
        own = self.links.admin_of(model)
        try:
            with contained():
                key = model._meta.pk.to_python(reference.key)
                model._meta.pk.run_validators(key)
                rows = own.get_queryset(self.links.request)
                rows = rows if alias is None else rows.using(alias)
                row: Model | None = rows.filter(pk=key).order_by().first()
        except (ValidationError, ValueError, TypeError, OverflowError):
            return None  # no key of this model
        except Exception:
            label = model._meta.label
            logger.warning("The admin of %s could not be asked.", label, exc_info=True)
            return None
        return row if row and may_view(own, self.links.request, row) else None
