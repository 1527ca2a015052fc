"""Render references to model instances in payloads as links.

A link shows the instance's present name, if the viewer may see the instance.
"""

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
from durable_jobs.project_code import contained, descriptions_of, may_view
from durable_jobs.serialization.tag_format import TAG, VALUE

logger = logging.getLogger("durable_jobs")

#: References that a page resolves. Further references are shown as stored.
MOST = 50
KIND = "model"

Target = tuple[str, str, str]


@dataclass(frozen=True)
class References:
    """The instances that the payloads of one page refer to.

    The first rendered payload loads them, with one query per model. ``texts`` are the
    stored payloads of the page.
    """

    links: Links
    texts: Sequence[str | None]

    def link(self, value: Any) -> SafeString | None:
        """Return the link of a reference, or None if it is shown as stored.

        ``value`` is the value inside the reference's tag.
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
        """Return the first distinct targets of the payloads."""
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
            return {}  # the model no longer exists
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
                seen = {
                    key: row
                    for key, row in rows.items()
                    if self._is_visible(model, row)
                }
        except Exception:
            logger.warning("The admin of %s failed.", label, exc_info=True)
            return {}  # the project's own queryset failed
        names = dict(zip(seen, descriptions_of(seen.values()), strict=True))
        return {
            (label, key, alias): self._link(model, label, key, names.get(value))
            for key, value in wanted.items()
            if value in seen or value not in rows
        }

    def _rows(self, model: type[Model], alias: str, keys: list[Any]) -> dict[Any, Any]:
        """Return the existing rows, annotated with whether the viewer may see them."""
        model_admin = self.links.admin_of(model)
        seen = model_admin.get_queryset(self.links.request).using(alias)
        found = model._base_manager.using(alias).filter(pk__in=keys)
        rows = self.links.joined(model, found)
        own_rows = Exists(seen.order_by().filter(pk=OuterRef("pk")))
        # A savepoint, so that an error does not break the page's transaction.
        with transaction.atomic(using=alias):
            return {row.pk: row for row in rows.annotate(durable_seen=own_rows)}

    def _is_visible(self, model: type[Model], row: Any) -> bool:
        model_admin = self.links.admin_of(model)
        return row.durable_seen and may_view(model_admin, self.links.request, row)

    def _link(
        self, model: type[Model], label: str, key: str, name: str | None
    ) -> SafeString:
        kind = format_html('<i class="durable-tag">{} {}</i> ', label, key)
        if name is None:
            deleted = format_html('<span class="durable-quiet">{}</span>', _("deleted"))
            return kind + deleted
        # The page's URL takes the key as stored.
        return kind + self.links.anchor(self.links.page(model, _key(model, key)), name)


def _key(model: type[Model], text: str) -> Any:
    """Return a key as a database value. Raise if it is invalid."""
    value = model._meta.pk.to_python(text)
    model._meta.pk.run_validators(value)
    return value


def _target(value: Any) -> Target | None:
    """Return the model, key and database alias that a tag's value refers to."""
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
    """Yield the targets in a payload."""
    if text is None or f'"{KIND}"' not in text:
        return
    try:
        # Keep numbers as text, like the page that shows them.
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
