"""What step bodies record, and the journal of the engine's own rows."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Effect(models.Model):
    """A call of a step's body. Rows are only ever added.

    ``step``: the step whose body it was. ``held``: the attempt held its run's lease
    then. ``recorded``: the database had the step's result then. ``booked``: what an
    ``atomic`` body has added to the account ``label``, in its transaction.
    """

    run = models.CharField(max_length=36)
    step = models.CharField(max_length=255, default="")
    label = models.CharField(max_length=100)
    pid = models.IntegerField()
    at = models.DateTimeField()
    held = models.BooleanField(default=True)
    recorded = models.BooleanField(default=False)
    booked = models.IntegerField(null=True)

    def __str__(self) -> str:
        return f"{self.label} of {self.run} by {self.pid}"


class Change(models.Model):
    """A change of a run or a step, recorded by a trigger of the database.

    ``before`` and ``after`` are statuses; ``altered`` says whether the output or the
    error changed.
    """

    kind = models.CharField(max_length=4)
    subject = models.UUIDField()
    before = models.CharField(max_length=10)
    after = models.CharField(max_length=10)
    altered = models.BooleanField()

    class Meta:
        indexes: ClassVar = [models.Index("subject", name="lab_change_subject")]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}: {self.before} to {self.after}"


class Spell(models.Model):
    """The duration of a body, by the database's clock. A killed body has no end."""

    run = models.CharField(max_length=36)
    key = models.CharField(max_length=100)
    began = models.DateTimeField()
    ended = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.key} of {self.run}"


class Gate(models.Model):
    """A blocked step continues when the row with its name exists."""

    name = models.CharField(max_length=100, primary_key=True)

    def __str__(self) -> str:
        return self.name


class Account(models.Model):
    """A balance that atomic steps change."""

    name = models.CharField(max_length=100, unique=True)
    balance = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name}: {self.balance}"
