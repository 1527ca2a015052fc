"""The declaration of the model instances that the runs of a function are about."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from durable_jobs.definitions.admin_action import model_label
from durable_jobs.definitions.flow_control import Key
from durable_jobs.expressions import Expression, compile_expression

if TYPE_CHECKING:
    from django.db.models import Model


@dataclass(frozen=True)
class Subject:
    """Link each run to a model instance that its event names by primary key.

    ``model`` is a model or its label. ``key`` is an expression over ``event`` that
    returns the primary key. Without a value, the run is not linked.
    """

    model: type[Model] | str
    key: Key

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", model_label(self.model, "Subject"))

    @property
    def where(self) -> str:
        """The start of messages about the subject."""
        return f"Subject({self.model!r})"

    @functools.cached_property
    def expression(self) -> Expression:
        """The compiled ``key``."""
        return compile_expression(self.key, where=f"{self.where} key")
