"""Entries in the admin's log: on the run, and on the instances that it is about.

Code of your models may raise, and writing the entry may fail. The action is done
anyway, and the failure is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.models import Model

from durable_jobs.models import Run, Subject
from durable_jobs.project_code import contained, descriptions_of
from durable_jobs.store import db

if TYPE_CHECKING:
    from durable_jobs.control.actor import Actor

logger = logging.getLogger("durable_jobs")

#: Maximum of instances of one run that get an entry.
MOST = 20


def record(actor: Actor, run: Run, text: str) -> None:
    """Write an entry on a run and on each of its existing subjects."""
    about = f"{run.function} {run.pk}: {text}"
    write_all(actor, [(run, text), *((one, about) for one in _subjects(run))])


def _subjects(run: Run) -> Iterator[Model]:
    rows = db.rows(Subject).filter(run_id=run.pk).order_by("pk")
    for subject in rows[:MOST]:
        try:
            model = apps.get_model(subject.model)
        except (LookupError, ValueError):
            continue  # the model no longer exists
        try:
            with contained():
                found = model._base_manager.filter(pk=subject.object_pk).first()
        except Exception:  # a manager or a field of your project
            logger.warning("Could not read %s for its history.", subject, exc_info=True)
            continue
        if found is not None:
            yield found


def write(actor: Actor, instance: Model, text: str) -> None:
    """Write an entry on an instance if the admin is installed."""
    write_all(actor, [(instance, text)])


def write_all(actor: Actor, entries: Iterable[tuple[Model, str]]) -> None:
    """Write entries on instances in one statement; log them if that fails."""
    if not apps.is_installed("django.contrib.admin"):
        return
    every = list(entries)
    by = f" (by {actor.via})" if actor.via else ""
    names = descriptions_of(instance for instance, _text in every)
    named = [(*entry, name) for entry, name in zip(every, names, strict=True)]
    try:
        with contained():
            _insert(actor, named, by)
    except Exception:
        logger.exception(
            "Could not write the admin's log of what user %s did%s: %s",
            actor.user.pk,
            by,
            "; ".join(text for _instance, text in every),
        )


def _insert(actor: Actor, entries: Iterable[tuple[Model, str, str]], by: str) -> None:
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.contenttypes.models import ContentType

    kinds: Any = ContentType.objects
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=actor.user.pk,
            content_type_id=kinds.get_for_model(one, for_concrete_model=False).pk,
            object_id=str(one.pk),
            object_repr=name,
            action_flag=CHANGE,
            change_message=f"{text}{by}",
        )
        for one, text, name in entries
    )
