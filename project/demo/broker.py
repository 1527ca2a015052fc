"""A broker of files, for processes that share a directory.

Kombu brings one along, but there a reader can meet a message that is half written, and
dies of it. Here messages come and go by a rename, which is all or nothing.
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
    """Queues are directories, and messages files in them, oldest first by name."""

    # What a dead worker had taken is gone: a wake-up is worth no more than that.
    do_restore = False

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        name = str(ids.new_id())
        written = self._folder(".new") / name
        written.write_text(json.dumps(message))
        written.rename(self._folder(queue) / name)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for file in sorted(self._folder(queue).iterdir()):
            taken = self._folder(".taken") / f"{uuid.uuid4()}"
            try:
                file.rename(taken)
            except FileNotFoundError:
                continue  # somebody else was faster
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
    """What ``CELERY_BROKER_TRANSPORT`` names."""

    Channel = Channel
    # Who is bound to what is declared by every process that sends or consumes.
    global_state = virtual.BrokerState()
    driver_type = driver_name = "files"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = self.global_state

    def driver_version(self) -> str:
        """Return what Celery shows as the version."""
        return "1"
