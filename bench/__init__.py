"""Benchmarks: the cost of durable steps, and ratios between engines on one machine.

The benchmarks need PostgreSQL and a broker. The services of the tests provide both::

    .venv/bin/python -m tests.services -- .venv/bin/python -m bench

Each repetition measures all figures again. Compared figures come from the same
repetition, so a busy machine slows both.
"""

from __future__ import annotations
