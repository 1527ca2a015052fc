"""The model instances that a run is about: those in its data and by ``subject=``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.db import models

from durable_jobs.definitions.admin_action import INSTANCE
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.subject import Subject
from durable_jobs.error_text import storable_text
from durable_jobs.exceptions import ExpressionError
from durable_jobs.flow_control.keys import evaluate_key
from durable_jobs.lifecycle import causation
from durable_jobs.models import Subject as SubjectRow
from durable_jobs.store import db

logger = logging.getLogger("durable_jobs")

#: A label and a primary key, as ``models.Subject`` stores them.
Link = tuple[str, str]

#: Characters of a stored primary key.
LONGEST = 255
#: Subjects whose warning was logged, by function.
_warned: set[tuple[str, str, str]] = set()


def label_of(model: type[models.Model]) -> str:
    """Return the label with which instances of a model are stored."""
    return (model._meta.concrete_model or model)._meta.label_lower


def subjects_of(data: Any) -> tuple[Link, ...]:
    """Return the model instances among the values of a payload."""
    if not isinstance(data, dict):
        return ()
    return tuple(_instances(data.values()))


def subjects_of_call(function: Function, data: Any) -> tuple[Link, ...]:
    """Return also the instance that a call of an ``admin_action`` names in its data."""
    found = subjects_of(data)
    if not function.admin_action or not isinstance(data, dict):
        return found
    if not all(name in data for name in INSTANCE):
        return found
    model, key = (str(data[name]) for name in INSTANCE)
    return ((model.lower(), key), *found)


def _instances(values: Iterable[Any]) -> Iterator[Link]:
    for value in values:
        if isinstance(value, models.Model) and value.pk is not None:
            yield label_of(type(value)), str(value.pk)


def declared_subjects(function: Function, event: ReceivedEvent) -> list[Link]:
    """Return the instances that a function's ``subject=`` names for an event.

    A key without a usable value links nothing, since a link must not stop a run.
    """
    return [
        link
        for subject in function.subjects
        if (link := _link(function, subject, event)) is not None
    ]


def _link(function: Function, subject: Subject, event: ReceivedEvent) -> Link | None:
    model = apps.get_model(str(subject.model))
    try:
        value = evaluate_key(subject.expression, event)
        return label_of(model), _key(model, value)
    except (ExpressionError, _NoKey) as error:
        _warn_once(function, subject, error)
        return None


class _NoKey(ValueError):
    """A value is no primary key. The message says why."""


def _key(model: type[models.Model], value: Any) -> str:
    """Return a primary key as ``str(instance.pk)``, so that both are equal."""
    if value is None:
        raise _NoKey("the value is missing or null")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _NoKey(f"expected a number or a string, got a {type(value).__name__}")
    try:
        text = str(model._meta.pk.to_python(value))
    except Exception:  # noqa: BLE001  # the field may be your project's own
        raise _NoKey(f"the value is no primary key of {model._meta.label}") from None
    if not text or text != storable_text(text, LONGEST):
        raise _NoKey(f"expected 1 to {LONGEST} characters")
    return text


def _warn_once(function: Function, subject: Subject, error: Exception) -> None:
    known = (function.id, subject.where, subject.expression.source)
    if known in _warned:
        return
    _warned.add(known)
    logger.warning(
        "%s of %s links no instance: %s. The run starts without this link. Later "
        "cases are not logged.",
        subject.where,
        function.id,
        str(error).rstrip("."),
    )


# Changes by a run's own code


def link_running_run(instance: models.Model) -> None:
    """Link the run whose code is changing an instance, in the change's transaction."""
    run = causation.running_run()
    if run is None:
        return
    link = SubjectRow(
        run_id=run.pk, model=label_of(type(instance)), object_pk=str(instance.pk)
    )
    db.rows(SubjectRow).bulk_create([link], ignore_conflicts=True)
