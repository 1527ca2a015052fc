"""Write events for model changes that start functions, in the change's transaction."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldError, ValidationError
from django.db import DatabaseError, models, router, transaction
from django.db.models import Model, Q
from django.db.models.signals import post_delete

from durable_jobs import clock, ids, serialization
from durable_jobs.control_flow import reraise_control
from durable_jobs.definitions.events import MODEL_CREATED, MODEL_DELETED, MODEL_UPDATED
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import ModelChange
from durable_jobs.error_text import summary_of
from durable_jobs.events import model_keys
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.lifecycle import causation
from durable_jobs.lifecycle import trigger as triggers
from durable_jobs.lifecycle.run_event import build_event_meta
from durable_jobs.lifecycle.run_subjects import link_running_run
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.lifecycle.trigger import TriggeredStart
from durable_jobs.models import Event
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.store import events

MODEL = "model"

Values = dict[str, Any]

_BEFORE = "_durable_before"


def tracked(model: type[Model]) -> list[tuple[Function, ModelChange]]:
    """Return the functions that start on changes of a model or its concrete model."""
    wanted = {model._meta.label_lower, concrete(model)._meta.label_lower}
    return [
        pair for pair in registry.model_changes() if pair[1].model.lower() in wanted
    ]


def concrete(model: type[Model]) -> type[Model]:
    """Return the model that owns the table: a proxy's concrete model."""
    return model._meta.concrete_model or model


def connect(function: Function) -> None:
    """Connect to the model changes that a function starts on.

    Raise ``ConfigurationError`` if a trigger, a ``subject`` or ``admin_action`` names
    an unknown model or field.
    """
    if function.admin_action:
        where = f"Durable function {function.id!r}: admin_action"
        _model(f"{where} {function.admin_action!r}", function.admin_action)
    for subject in function.subjects:
        _model(f"Durable function {function.id!r}: {subject.where}", str(subject.model))
    for trigger in function.triggers:
        if isinstance(trigger, ModelChange):
            model = _check(function, trigger)
            commit_with_events(model)
            if trigger.deleted:
                _connect_deletions(model)


def _check(function: Function, trigger: ModelChange) -> type[Model]:
    where = f"Durable function {function.id!r}: ModelChange({trigger.model!r})"
    model = _model(where, trigger.model)
    model_keys.check_include(model, trigger, where)
    model_keys.check_keys(function, model, trigger, where)
    names = _names(model)
    for name in trigger.fields or ():
        if name not in names:
            msg = f"{where}: expected fields among {', '.join(names)}, got {name!r}."
            raise ConfigurationError(msg)
    if isinstance(trigger.when, Q):
        try:
            model._base_manager.filter(trigger.when)
        except (FieldError, ValidationError, TypeError, ValueError) as error:
            msg = f"{where}: its condition is invalid: {error}"
            raise ConfigurationError(msg) from None
    return model


def _model(where: str, label: str) -> type[Model]:
    try:
        found: type[Model] = apps.get_model(label)
    except (LookupError, ValueError):
        msg = f"{where}: there is no such model."
        raise ConfigurationError(msg) from None
    return found


def _connect_deletions(model: type[Model]) -> None:
    """Connect to the deletions of a model and its proxies only.

    Django loads rows before it deletes them if a receiver is connected.
    """
    for one in {model, *apps.get_models()}:
        if concrete(one) is concrete(model):
            uid = f"durable_jobs.gone.{one._meta.label_lower}"
            post_delete.connect(after_delete, sender=one, dispatch_uid=uid)


def commit_with_events(model: type[Model]) -> None:
    """Make ``save()`` of a model commit together with the events of its signals.

    Outside of ``atomic()`` Django commits the row before it sends ``post_save``. A
    process that dies in between would lose the event.
    """
    plain = model.save_base
    if getattr(plain, "durable", False):
        return

    @functools.wraps(plain)
    def save_base(self: Model, *args: Any, **kwargs: Any) -> None:
        using = kwargs.get("using") or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using, savepoint=False):
            plain(self, *args, **kwargs)

    save_base.durable = True  # type: ignore[attr-defined]  # marks our own wrapper
    model.save_base = save_base  # type: ignore[method-assign]  # the one hook around a save


# Receivers


def before_save(sender: type[Model], instance: Model, **kwargs: Any) -> None:
    """Keep the stored values of an instance before it is updated."""
    updates = any(trigger.updated for _, trigger in tracked(sender))
    if kwargs.get("raw") or not updates or instance.pk is None:
        return
    rows = sender._base_manager.using(kwargs.get("using")).filter(pk=instance.pk)
    instance.__dict__[_BEFORE] = rows.values(*_names(sender)).first()


def after_save(
    sender: type[Model], instance: Model, created: bool, **kwargs: Any
) -> None:
    """Write the event of a save."""
    before = instance.__dict__.pop(_BEFORE, None)
    if kwargs.get("raw") or not tracked(sender):
        return
    after = _stored(instance, kwargs.get("update_fields"))
    change = Change(instance, MODEL_CREATED if created else MODEL_UPDATED)
    change.fields = difference(None if created else before, after)
    change.values = {**(before or {}), **after}
    link_running_run(instance)
    record([change])


def after_delete(sender: type[Model], instance: Model, **kwargs: Any) -> None:
    """Write the event of a deletion."""
    if not tracked(sender):
        return
    change = Change(instance, MODEL_DELETED)
    change.values = _stored(instance)
    change.fields = {name: [old, None] for name, old in change.values.items()}
    link_running_run(instance)
    record([change])


class Change:
    """One change of one instance: ``fields`` maps names to ``[old, new]``.

    ``values`` are the known stored values after the change; for a deleted instance, its
    last values.
    """

    def __init__(self, instance: Model, name: str) -> None:
        self.instance, self.name = instance, name
        self.pk = instance.pk
        self.fields: dict[str, list[Any]] = {}
        self.values: Values = {}

    def included(self, names: Iterable[str]) -> Values:
        """Return the values of the fields in ``include``."""
        columns = model_keys.columns(type(self.instance))
        wanted = {name: columns[name] for name in names}
        unknown = set(wanted.values()) - self.values.keys()
        if unknown and self.name != MODEL_DELETED:
            rows = type(self.instance)._base_manager.using(self.instance._state.db)
            self.values |= rows.filter(pk=self.pk).values(*unknown).first() or {}
        return {
            name: storable(self.values.get(field)) for name, field in wanted.items()
        }

    def starts(self, trigger: ModelChange) -> bool:
        """Return whether a trigger matches this change."""
        wanted = {
            MODEL_CREATED: trigger.created,
            MODEL_UPDATED: trigger.updated,
            MODEL_DELETED: trigger.deleted,
        }[self.name]
        if not wanted:
            return False
        narrowed = self.name == MODEL_UPDATED and trigger.fields is not None
        if narrowed and not any(name in self.fields for name in trigger.fields or ()):
            return False
        return _matches(self, trigger.when)


def _skip_reason(change: Change, trigger: ModelChange) -> str | None:
    """Return None if a trigger does not match a change, else why its run is skipped.

    The reason is empty if the run starts.
    """
    try:
        return "" if change.starts(trigger) else None
    except DatabaseError:
        raise  # the transaction is unusable
    except BaseException as error:  # noqa: BLE001  # a broken condition must not fail saves
        reraise_control(error)
        return (
            f"The condition of its trigger, ModelChange({trigger.model!r}), failed: "
            f"{summary_of(error)}"
        )


def _matches(change: Change, when: Q | Callable[[Any], bool] | None) -> bool:
    if when is None:
        return True
    if not isinstance(when, Q):
        return bool(when(change.instance))
    if change.name == MODEL_DELETED:
        # The row is deleted: check the condition on its last values.
        values = {
            name: getattr(change.instance, f.attname)
            for f in _fields(type(change.instance))
            for name in (f.attname, f.name)
        }
        return when.check(values, using=change.instance._state.db or "default")
    rows = type(change.instance)._base_manager.using(change.instance._state.db)
    return rows.filter(pk=change.pk).filter(when).exists()


def record(changes: Sequence[Change]) -> None:
    """Store the events of changes and start their functions."""
    rows, starts = [], []
    now = clock.now()
    for change in changes:
        model = concrete(type(change.instance))
        reasons: dict[Function, str] = {}
        include: dict[str, None] = {}
        for function, trigger in tracked(type(change.instance)):
            reason = _skip_reason(change, trigger)
            if reason is None:
                continue
            include |= dict.fromkeys(trigger.include)
            if reasons.get(function, "?"):
                reasons[function] = reason
        if not reasons:
            continue
        data = {
            "model": model._meta.label,
            "pk": change.pk,
            "changed": change.fields,
            **change.included(include),
        }
        text = serialization.dumps(data, what=f"a change of {data['model']}")
        causation.check(f"event {change.name} of {model._meta.label}")
        event_id = str(ids.new_id())
        rows.append(
            Event(
                id=event_id,
                name=change.name,
                data=EncodedJSON(text),
                ts=now,
                received_at=now,
                source=MODEL,
                depth=causation.depth(),
            )
        )
        subject = (model._meta.label_lower, str(change.pk))
        starts += [
            TriggeredStart(
                NewRun(
                    function=function,
                    data=text,
                    event_meta=causation.with_chain(
                        build_event_meta(change.name, now, event_id),
                        causation.running_run(),
                        change.name,
                    ),
                    depth=causation.depth(),
                    due_at=function.options.due(now),
                    event_id=event_id,
                    skip_reason=skip_reason,
                    subjects=(subject,),
                )
            )
            for function, skip_reason in reasons.items()
        ]
    if rows:
        events.insert(rows)
        triggers.start_triggered(starts)


# Values


def _fields(model: type[Model]) -> list[models.Field[Any, Any]]:
    return list(model._meta.concrete_fields)


def _names(model: type[Model]) -> list[str]:
    return [field.name for field in _fields(model)]


def _stored(instance: Model, only: Iterable[str] | None = None) -> Values:
    """Return the values of an instance as stored in its columns."""
    chosen = None if only is None else set(only)
    deferred = instance.get_deferred_fields()
    values: Values = {}
    queried: list[str] = []
    for field in _fields(type(instance)):
        if field.attname in deferred:
            continue
        if chosen is not None and not {field.name, field.attname} & chosen:
            continue
        value = getattr(instance, field.attname)
        if hasattr(value, "resolve_expression"):
            queried.append(
                field.name
            )  # an expression such as F("total") + 1: read the row
        else:
            values[field.name] = field.to_python(value)
    if queried:
        rows = type(instance)._base_manager.using(instance._state.db)
        values |= rows.filter(pk=instance.pk).values(*queried).get()
    return values


def difference(before: Values | None, after: Values) -> dict[str, list[Any]]:
    """Return the fields whose values differ, as ``[old, new]``."""
    if before is None:
        return {name: [None, storable(new)] for name, new in after.items()}
    return {
        name: [storable(before.get(name)), storable(new)]
        for name, new in after.items()
        if before.get(name) != new
    }


def storable(value: Any) -> Any:
    """Return a column's value as a JSON-compatible value."""
    if isinstance(value, models.Model):
        return value.pk
    if hasattr(value, "name") and hasattr(value, "storage"):
        return value.name  # a file is stored by name
    if isinstance(value, memoryview):
        return bytes(value)
    return value
