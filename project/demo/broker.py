"""A file-based broker for processes that share a directory.

Kombu's own filesystem transport can read a half-written message, which crashes the
reader. This transport adds and removes messages with a rename, which is atomic.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from queue import Empty
from typing import Any
from urllib.parse import quote

from kombu.transport import virtual

from durable_jobs import ids


class Channel(virtual.Channel):
    """Each queue is a directory. Each message is a file, named in order of sending."""

    # Messages that a dead worker had received are lost. The tick repeats wake-ups.
    do_restore = False

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        name = str(ids.new_id())
        new = self._folder(".new") / name
        new.write_text(json.dumps(message))
        new.rename(self._folder(queue) / name)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for file in sorted(self._folder(queue).iterdir()):
            taken = self._folder(".taken") / f"{uuid.uuid4()}"
            try:
                file.rename(taken)
            except FileNotFoundError:
                continue  # another process took the message
            text = taken.read_text()
            taken.unlink()
            return json.loads(text)
        raise Empty

    def _size(self, queue: str) -> int:
        return len(list(self._folder(queue).iterdir()))

    def _purge(self, queue: str) -> int:
        count = 0
        for file in self._folder(queue).iterdir():
            file.unlink(missing_ok=True)
            count += 1
        return count

    def _folder(self, queue: str) -> Path:
        client: Any = self.connection.client
        root = Path(client.transport_options["folder"])
        folder = root / quote(queue, safe=".")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Transport(virtual.Transport):
    """The transport for the setting ``CELERY_BROKER_TRANSPORT``."""

    Channel = Channel
    # Each process that sends or consumes declares its bindings again.
    global_state = virtual.BrokerState()
    driver_type = driver_name = "files"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = self.global_state

    def driver_version(self) -> str:
        """Return the version that Celery shows."""
        return "1"
