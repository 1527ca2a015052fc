"""Instances in payloads as links, by their names of today, for who may see them."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.db.models import Exists, Model, OuterRef
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from durable_jobs.admin.links import Links
from durable_jobs.project_code import all_described, contained, may_view
from durable_jobs.serialization.tags import TAG, VALUE

logger = logging.getLogger("durable_jobs")

#: References that a page looks up; those beyond are shown as they are stored.
MOST = 50
KIND = "model"

Target = tuple[str, str, str]


@dataclass(frozen=True)
class References:
    """The instances that the payloads of one page refer to, as one viewer sees them.

    Nothing is wanted before the first payload is shown, and then one query a model.
    ``texts`` are the page's payloads as they are stored.
    """

    links: Links
    texts: Sequence[str | None]

    def link(self, value: Any) -> SafeString | None:
        """Return a reference as a link, None where it is to be shown as it is stored.

        ``value`` is what stands in its tag.
        """
        target = _target(value)
        return self._known.get(target) if target is not None else None

    @cached_property
    def _known(self) -> Mapping[Target, SafeString]:
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for label, key, alias in self._targets():
            groups[label, alias].append(key)
        known: dict[Target, SafeString] = {}
        for (label, alias), keys in groups.items():
            known |= self._of_model(label, alias, keys)
        return known

    def _targets(self) -> Iterable[Target]:
        """Return the first places that the payloads refer to, each once."""
        found: dict[Target, None] = {}
        for text in self.texts:
            for target in _targets_in(text):
                if len(found) >= MOST:
                    return found
                found[target] = None
        return found

    def _of_model(
        self, label: str, alias: str, keys: Sequence[str]
    ) -> dict[Target, SafeString]:
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError):
            return {}  # gone from the code
        if not self.links.allowed(model) or alias not in connections:
            return {}
        wanted = {}
        for key in keys:
            try:
                wanted[key] = _key(model, key)
            except (ValidationError, ValueError, TypeError):
                continue
        try:
            with contained():
                rows = self._rows(model, alias, list(wanted.values()))
                seen = {key: row for key, row in rows.items() if self._sees(model, row)}
        except Exception:
            logger.warning("The admin of %s could not be wanted.", label, exc_info=True)
            return {}  # what the project's own queryset cannot be wanted
        names = dict(zip(seen, all_described(seen.values()), strict=True))
        return {
            (label, key, alias): self._link(model, label, key, names.get(value))
            for key, value in wanted.items()
            if value in seen or value not in rows
        }

    def _rows(self, model: type[Model], alias: str, keys: list[Any]) -> dict[Any, Any]:
        """Return the rows that there are, each with whether the viewer may see it."""
        own = self.links.admin_of(model)
        seen = own.get_queryset(self.links.request).using(alias)
        found = model._base_manager.using(alias).filter(pk__in=keys)
        rows = self.links.joined(model, found)
        own_rows = Exists(seen.order_by().filter(pk=OuterRef("pk")))
        # Inside a transaction, so that an error leaves the page's own as it was.
        with transaction.atomic(using=alias):
            return {row.pk: row for row in rows.annotate(durable_seen=own_rows)}

    def _sees(self, model: type[Model], row: Any) -> bool:
        own = self.links.admin_of(model)
        return row.durable_seen and may_view(own, self.links.request, row)

    def _link(
        self, model: type[Model], label: str, key: str, name: str | None
    ) -> SafeString:
        kind = format_html('<i class="durable-tag">{} {}</i> ', label, key)
        if name is None:
            gone = format_html('<span class="durable-quiet">{}</span>', _("deleted"))
            return kind + gone
        # By the key as it is stored, which is how a page is wanted for.
        return kind + self.links.anchor(self.links.page(model, _key(model, key)), name)


def _key(model: type[Model], text: str) -> Any:
    """Return a key as the database takes it; raise for one that cannot be."""
    value = model._meta.pk.to_python(text)
    model._meta.pk.run_validators(value)
    return value


def _target(value: Any) -> Target | None:
    """Return what a tag's value refers to: model, key as text, alias."""
    if not isinstance(value, list) or len(value) != 3:
        return None
    label, key, alias = value
    if isinstance(key, dict) and set(key) == {TAG, VALUE}:
        key = key[VALUE]
    simple = isinstance(key, str | int | float) and not isinstance(key, bool)
    if not simple or not isinstance(label, str):
        return None
    if alias is not None and not isinstance(alias, str):
        return None
    return label, str(key), alias or "default"


def _targets_in(text: str | None) -> Iterator[Target]:
    """Give the places in a payload, without going deeper than it can be shown."""
    if text is None or f'"{KIND}"' not in text:
        return
    try:
        # Numbers stay as they are written, as where they are shown.
        todo = [json.loads(text, parse_int=str, parse_float=str)]
    except (ValueError, RecursionError):
        return
    while todo:
        tree = todo.pop()
        if isinstance(tree, dict):
            target = _target(tree.get(VALUE)) if tree.get(TAG) == KIND else None
            if target is not None:
                yield target
            todo += reversed(list(tree.values()))
        elif isinstance(tree, list):
            todo += reversed(tree)
