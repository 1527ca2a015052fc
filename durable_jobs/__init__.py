"""Durable execution inside the Django project you already have.

Everything a user writes comes from one door: ``from durable_jobs import durable``.
"""

from __future__ import annotations

__version__ = "0.1.0"
