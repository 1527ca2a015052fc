"""The benchmark: what durable steps cost, as ratios measured in one run on one machine.

It needs a PostgreSQL and a broker, which the tests' own services give::

    .venv/bin/python -m tests.services -- .venv/bin/python -m bench

Every figure is taken anew in each repetition, and the figures that are compared with
one another are taken in the same repetition: a busy machine slows both.
"""

from __future__ import annotations
