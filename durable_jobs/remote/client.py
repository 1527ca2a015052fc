"""One request and its reply, within bounds: of time, of size, and of whom it asks.

No redirect is followed and no proxy is looked for: what is signed goes to the address
that was declared, and nowhere else.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from durable_jobs.durations import format_duration
from durable_jobs.exceptions import ConfigurationError, LimitExceeded, RemoteFailed
from durable_jobs.remote.errors import bad

if TYPE_CHECKING:
    import httpx

MAX_REQUEST = 4 * 1024 * 1024
MAX_REPLY = 8 * 1024 * 1024
#: Seconds for a connection alone.
CONNECT = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. The names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def connected() -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that keeps its connections inside the block."""
    try:
        import httpx
    except ImportError:
        msg = "Functions of an app elsewhere need: pip install 'durable-jobs[remote]'."
        raise ConfigurationError(msg) from None
    timeout = httpx.Timeout(None, connect=CONNECT)  # the rest is bounded as a whole
    limits = httpx.Limits(max_connections=None)  # who asks waits for its turn before
    async with httpx.AsyncClient(
        timeout=timeout, limits=limits, follow_redirects=False, trust_env=False
    ) as client:
        yield client


async def post(
    client: httpx.AsyncClient,
    url: str,
    *,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    body: bytes,
    limit: timedelta,
) -> Reply:
    """Post a body and return the whole reply.

    Raises ``RemoteFailed`` for what another attempt may mend: an app that is not there,
    that breaks off, takes longer than ``limit`` or answers with more than 8 MB. Raises
    ``LimitExceeded`` for a request of more than 4 MB.
    """
    import httpx

    if len(body) > MAX_REQUEST:
        msg = (
            f"The events and the results of a run are sent with each request: they "
            f"have {len(body)} bytes by now, and may have {MAX_REQUEST}."
        )
        raise LimitExceeded(msg)
    try:
        async with (
            asyncio.timeout(limit.total_seconds()),
            client.stream(
                "POST", url, params=dict(query), headers=dict(headers), content=body
            ) as response,
        ):
            found = {name.lower(): value for name, value in response.headers.items()}
            raw = await _read(response.aiter_raw(), found)
            return Reply(response.status_code, found, raw)
    except TimeoutError:
        msg = f"The app did not answer within {format_duration(limit)}."
        raise RemoteFailed(msg, error_type="Timeout") from None
    except httpx.HTTPError as error:
        # Its own text may quote what was sent.
        msg = f"The app could not be asked: {type(error).__name__}."
        raise RemoteFailed(msg, error_type="Unreachable") from error


async def _read(chunks: AsyncIterator[bytes], headers: Mapping[str, str]) -> bytes:
    """Return a body as it was before it was compressed, if it is not too large."""
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise bad(f"The app's answer is in an encoding not asked for: {encoding:.40}.")
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_REPLY:
            raise _too_large()
    return _unpacked(bytes(body)) if encoding == "gzip" else bytes(body)


def _unpacked(packed: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    try:
        body = unpack.decompress(packed, MAX_REPLY + 1)
    except zlib.error:
        raise bad("The app answered with gzip that cannot be read.") from None
    if len(body) > MAX_REPLY:
        raise _too_large()
    if not unpack.eof or unpack.unused_data:
        raise bad("The app answered with half of a gzip, or with more than one.")
    return body


def _too_large() -> RemoteFailed:
    msg = f"The app answered with more than {MAX_REPLY} bytes."
    return RemoteFailed(msg, error_type="TooLarge")
