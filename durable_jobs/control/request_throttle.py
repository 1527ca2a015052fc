"""How often somebody may ask: so many requests in a period that slides.

The counts are in Django's default cache, two a caller. They are moved by the cache's
own ``incr``, so that requests at one moment do not pass for one. What is refused does
not count. A cache that is away lets everybody in: it is a guard, not a lock.
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
from durable_jobs.conf import Rate
from durable_jobs.project_code import contained

logger = logging.getLogger("durable_jobs")


def wait(who: str, rate: Rate | None) -> float | None:
    """Count a request of somebody; return the seconds to wait when it is one too many.

    Without a rate, or with a cache that keeps nothing, no request is counted.
    """
    if rate is None or isinstance(caches[DEFAULT_CACHE_ALIAS], DummyCache):
        return None
    try:
        with _apart():
            return _wait(who, rate)
    except Exception:  # each cache has errors of its own, and none may close the door
        logger.exception("The cache that counts requests failed: all are let in.")
        return None


def _apart() -> AbstractContextManager[None]:
    """Keep the errors of a cache in the database away from open transactions."""
    own = isinstance(caches[DEFAULT_CACHE_ALIAS], BaseDatabaseCache)
    return contained() if own else nullcontext()


def address(request: HttpRequest) -> str:
    """Return the address that a request came from, as Django was told it.

    An IPv6 address stands for its /64, of which one machine has all addresses. One that
    holds an IPv4 address is that one.
    """
    text = request.META.get("REMOTE_ADDR", "")
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return f"address:{text}"  # of a socket of the machine, or none
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    if isinstance(found, ipaddress.IPv6Address):
        return f"address:{ipaddress.ip_network((int(found), 64), strict=False)}"
    return f"address:{found}"


def _wait(who: str, rate: Rate) -> float | None:
    """Count a request, or return the seconds to the moment at which one may pass."""
    length = rate.period.total_seconds()
    number, into = divmod(clock.now().timestamp(), length)
    before = int(cache.get(_name(who, int(number) - 1), 0))
    name = _name(who, int(number))
    cache.add(name, 0, timeout=2 * length + 1)
    now = int(cache.incr(name))
    # As much of the period before as is not a whole period ago.
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
