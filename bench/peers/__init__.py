"""The peers, one module each: a description, and an adapter that drives the peer."""

from __future__ import annotations

import importlib

from bench.adapters import Peer

#: The order of the table.
NAMES = (
    "ours",
    "dbos",
    "absurd",
    "django_absurd",
    "restate",
    "pgqueuer",
    "procrastinate",
    "django_tasks_db",
    "celery_chain",
    "celery_one",
)


def peer(name: str) -> Peer:
    """Return the description of a peer, without importing its packages."""
    found: Peer = importlib.import_module(f"bench.peers.{name}").PEER
    return found
