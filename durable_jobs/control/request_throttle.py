"""Throttle requests: a maximum number of requests per sliding period.

Two counters per caller are in Django's default cache. The cache's ``incr`` updates
them, so that concurrent requests are all counted. Refused requests do not count. If the
cache is unreachable, all requests are accepted.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from contextlib import AbstractContextManager, nullcontext

from django.core.cache import DEFAULT_CACHE_ALIAS, cache, caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.http import HttpRequest

from durable_jobs import clock
from durable_jobs.conf import Rate, settings
from durable_jobs.project_code import contained

logger = logging.getLogger("durable_jobs")


def wait(who: str, rate: Rate | None) -> float | None:
    """Count a request of a caller; return the seconds to wait if it exceeds the rate.

    Without a rate, or with a dummy cache, no request is counted.
    """
    if rate is None or isinstance(caches[DEFAULT_CACHE_ALIAS], DummyCache):
        return None
    try:
        with _apart():
            return _wait(who, rate)
    except Exception:  # each cache backend has its own errors
        logger.exception(
            "The cache that counts requests failed. Requests are not throttled."
        )
        return None


def _apart() -> AbstractContextManager[None]:
    """Isolate open transactions from errors of a database cache."""
    in_database = isinstance(caches[DEFAULT_CACHE_ALIAS], BaseDatabaseCache)
    return contained() if in_database else nullcontext()


def address(request: HttpRequest) -> str:
    """Return the client address of a request.

    It is ``REMOTE_ADDR``, or with ``NUM_PROXIES`` the address in ``X-Forwarded-For``
    that the outermost trusted proxy appended. Clients can forge the addresses before
    that one. An IPv6 address is reduced to its /64 network, because one host may use
    all its addresses. A mapped IPv4 address is returned as IPv4.
    """
    text = _forwarded_for(request) or request.META.get("REMOTE_ADDR", "")
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return f"address:{text}"  # a Unix socket, or no address
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    if isinstance(found, ipaddress.IPv6Address):
        return f"address:{ipaddress.ip_network((int(found), 64), strict=False)}"
    return f"address:{found}"


def _forwarded_for(request: HttpRequest) -> str:
    """Return the address that the outermost trusted proxy saw, or an empty string."""
    proxies = settings.NUM_PROXIES
    header = request.META.get("HTTP_X_FORWARDED_FOR", "") if proxies else ""
    return header.split(",")[-proxies:][0].strip()


def _wait(who: str, rate: Rate) -> float | None:
    """Count a request, or return the seconds until the next request is allowed."""
    length = rate.period.total_seconds()
    number, into = divmod(clock.now().timestamp(), length)
    before = int(cache.get(_name(who, int(number) - 1), 0))
    name = _name(who, int(number))
    cache.add(name, 0, timeout=2 * length + 1)
    now = int(cache.incr(name))
    # The part of the previous period that is inside the sliding period.
    if before * (1 - into / length) + now <= rate.limit:
        return None
    cache.decr(name)
    left = length - into
    if now > rate.limit or not before:
        return left
    return max(left - length * (rate.limit - now) / before, 0)


def _name(who: str, number: int) -> str:
    known = hashlib.sha256(who.encode()).hexdigest()[:32]
    return f"durable_jobs.rate.{known}.{number}"
