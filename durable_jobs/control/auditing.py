"""Entries in the admin's log: on the run, and on the instances that it is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.models import Model

from durable_jobs.models import Run, Subject
from durable_jobs.store import db

if TYPE_CHECKING:
    from durable_jobs.control.acting import Actor

#: Instances of one run that get an entry, at most.
MOST = 20
_LONGEST = 200


def record(actor: Actor, run: Run, text: str) -> None:
    """Write an entry on a run, and one on each of its subjects that there is."""
    write(actor, run, text)
    rows = Subject.objects.using(db.alias()).filter(run_id=run.pk).order_by("pk")
    about = f"{run.function} {run.pk}: {text}"
    for subject in rows[:MOST]:
        try:
            model = apps.get_model(subject.model)
        except (LookupError, ValueError):
            continue  # gone from the code
        found = model._base_manager.filter(pk=subject.object_pk).first()
        if found is not None:
            write(actor, found, about)


def write(actor: Actor, instance: Model, text: str) -> None:
    """Write one entry on any instance, where the host has the admin's log."""
    write_all(actor, [(instance, text)])


def write_all(actor: Actor, entries: Iterable[tuple[Model, str]]) -> None:
    """Write entries on instances in one statement."""
    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.contenttypes.models import ContentType

    by = f" (by {actor.via})" if actor.via else ""
    kinds: Any = ContentType.objects
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=actor.user.pk,
            content_type_id=kinds.get_for_model(one, for_concrete_model=False).pk,
            object_id=str(one.pk),
            object_repr=str(one)[:_LONGEST],
            action_flag=CHANGE,
            change_message=f"{text}{by}",
        )
        for one, text in entries
    )
