"""HTTP requests to a remote app, with limits on time and size.

The client follows no redirects and uses no proxy, so a signed request goes only to the
declared address.
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
    """The reply of an app. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def connected() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that reuses its connections inside the block."""
    try:
        import httpx
    except ImportError:
        msg = "Remote functions need: pip install 'durable-jobs[remote]'."
        raise ConfigurationError(msg) from None
    timeout = httpx.Timeout(None, connect=CONNECT)  # the whole request has one limit
    limits = httpx.Limits(max_connections=None)  # a semaphore limits requests
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

    Raise ``RemoteFailed`` if a retry may help: the app is unreachable, closes the
    connection, takes longer than ``limit``, or replies with more than 8 MB. Raise
    ``LimitExceeded`` if the request has more than 4 MB.
    """
    import httpx

    if len(body) > MAX_REQUEST:
        msg = (
            f"The events and results of a run are sent with each request: expected "
            f"at most {MAX_REQUEST} bytes, got {len(body)}."
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
        # The error's own text may contain the request.
        msg = f"The request to the app failed: {type(error).__name__}."
        raise RemoteFailed(msg, error_type="Unreachable") from error


async def _read(chunks: AsyncIterator[bytes], headers: Mapping[str, str]) -> bytes:
    """Return the decompressed body, if it is not too large."""
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise bad(f"The app's reply has an unsupported encoding: {encoding:.40}.")
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_REPLY:
            raise _too_large()
    return _decompressed(bytes(body)) if encoding == "gzip" else bytes(body)


def _decompressed(packed: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    try:
        body = unpack.decompress(packed, MAX_REPLY + 1)
    except zlib.error:
        raise bad("The app replied with invalid gzip data.") from None
    if len(body) > MAX_REPLY:
        raise _too_large()
    if not unpack.eof or unpack.unused_data:
        raise bad("The app replied with incomplete gzip data, or with trailing data.")
    return body


def _too_large() -> RemoteFailed:
    msg = f"The app replied with more than {MAX_REPLY} bytes."
    return RemoteFailed(msg, error_type="TooLarge")
