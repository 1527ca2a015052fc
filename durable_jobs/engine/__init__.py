"""Replay: a run's function is called from the top, and its steps answer from memory.

One attempt is a pipeline: the run that was claimed, its memos, the call, and what
comes of it. A step is one generator: it plans, yields what has to be called, and
records what came back; drivers call things the way the function's colour and the
branches ask for.
"""

from __future__ import annotations
