"""The only writers of state: one module a noun, one short transaction an action.

Locks are taken in one order, so that no two actions can wait for each other: parent
run, run, its children by id; then steps, then waits. Whoever holds a run's row lock
decides about its steps and waits.
"""

from __future__ import annotations
