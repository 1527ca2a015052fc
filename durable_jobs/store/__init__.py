"""The only writers of state: one module per table, one short transaction per change.

Every transaction locks rows in the same order, so that transactions cannot deadlock:
first the parent run, then the run, then its children by id, then steps, then waits.
The row lock of a run protects its steps and waits.
"""

from __future__ import annotations
