"""The operation of ``ctx.step.approve``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from django.forms import BaseForm, FileField

from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.operations import Timed
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.serialization.classes import class_name
from durable_jobs.serialization.path_error import PathError


@dataclass(frozen=True, kw_only=True)
class Approve(Timed):
    """Wait until a user with the permission approves or rejects."""

    kind: ClassVar[str] = "approve"
    title: str
    permission: str
    form: type[BaseForm] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"step {self.id!r}"
        check_name(self.title, f"the title of {where}")
        check_permission(self.permission, where)
        if self.form is not None:
            check_form(self.form, where)

    @property
    def question(self) -> dict[str, Any]:
        """The question as JSON, with the form as the name of its class."""
        cls: Any = self.form
        form = None if cls is None else class_name(cls)
        return {"title": self.title, "permission": self.permission, "form": form}


def check_permission(value: object, where: str) -> None:
    """Raise ``ConfigurationError`` unless ``value`` has the form ``"app.codename"``."""
    name = check_name(value, f"the permission of {where}")
    app, _, codename = name.partition(".")
    if not app or not codename or " " in name:
        msg = (
            f"{where}: expected a permission as 'app.codename', for example "
            f"'shop.change_order', got {name!r:.80}."
        )
        raise ConfigurationError(msg)


def check_form(value: object, where: str) -> None:
    """Raise ``ConfigurationError`` unless ``value`` is a form class that can be used.

    The class must be importable by name, and must have no file fields.
    """
    if not (isinstance(value, type) and issubclass(value, BaseForm)):
        msg = f"{where}: expected a class of django.forms, got {value!r:.80}."
        raise ConfigurationError(msg)
    cls: Any = value
    try:
        class_name(cls)
    except PathError as refusal:
        msg = f"{where}: the form class cannot be stored: {refusal.reason}."
        raise ConfigurationError(msg) from None
    fields: dict[str, Any] = getattr(cls, "base_fields", {})
    files = [name for name, each in fields.items() if isinstance(each, FileField)]
    if files:
        msg = (
            f"{where}: a run cannot store uploaded files, but the form has file fields "
            f"({', '.join(files)}). Use a field for a saved instance with the file."
        )
        raise ConfigurationError(msg)
