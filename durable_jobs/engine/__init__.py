"""Replay: call a run's function from the top and return recorded step results.

An attempt loads the run's step records, calls the function and writes the outcome. Each
kind of step is one generator, a *plan*. It yields effects: call a body, run branches,
record a step. A driver performs the effects, in threads for ``def`` functions and in an
event loop for ``async def`` functions.
"""

from __future__ import annotations
