"""Remote functions: their code is a separate app in any language, called over HTTP.

The app serves the functions with an Inngest SDK. Triggers, flow control, steps and runs
are in this project. Declare an app with ``remote.App``. Requires the extra
``durable-jobs[remote]``.
"""

from __future__ import annotations

from durable_jobs.remote.apps import App

__all__ = ["App"]
