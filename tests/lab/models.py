"""What steps leave behind in the lab."""

from __future__ import annotations

from django.db import models


class Effect(models.Model):
    """Something that a step's body did. Rows are only ever added."""

    run = models.CharField(max_length=36)
    label = models.CharField(max_length=100)
    pid = models.IntegerField()
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.label} of {self.run} by {self.pid}"


class Spell(models.Model):
    """How long a step's body took, by the database's clock; no end: it was killed."""

    run = models.CharField(max_length=36)
    key = models.CharField(max_length=100)
    began = models.DateTimeField()
    ended = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.key} of {self.run}"


class Gate(models.Model):
    """A step that waits at a gate goes on when the gate's row is there."""

    name = models.CharField(max_length=100, primary_key=True)

    def __str__(self) -> str:
        return self.name


class Account(models.Model):
    """A balance that atomic steps change."""

    name = models.CharField(max_length=100, unique=True)
    balance = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name}: {self.balance}"
