"""Schedules: sync declared crons, find due occurrences, and start their runs."""

from __future__ import annotations
