"""``POST webhooks/<path>``: receive deliveries of webhook providers."""

from __future__ import annotations

import logging
import math

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from durable_jobs.conf import settings
from durable_jobs.control import request_throttle
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.webhooks import delivery
from durable_jobs.webhooks.parsing import RejectedDelivery, payload_of, raw_body

logger = logging.getLogger("durable_jobs")


# The signature authenticates the sender, so CSRF does not apply.
@csrf_exempt
@never_cache
def receive(request: HttpRequest, path: str) -> HttpResponse:
    """Accept a delivery: 202 with the event ids, or 204 if it is ignored."""
    found = registry.webhooks(path)
    if not found:
        return _error(404, "No webhook has this path.")
    if request.method != "POST":
        response = _error(405, "Expected POST.")
        response["Allow"] = "POST"
        return response
    try:
        return _receive(found[0][1], request)
    except RejectedDelivery as rejected:
        reason = " ".join(rejected.reason.split())[:500].rstrip(".")
        logger.warning("Webhook %s: %s (%s).", path, rejected.status, reason)
        response = _error(rejected.status, rejected.message)
        if rejected.wait is not None:
            response["Retry-After"] = str(math.ceil(rejected.wait))
        return response


def _receive(hook: Webhook, request: HttpRequest) -> HttpResponse:
    client = f"webhook:{hook.path}:{request_throttle.address(request)}"
    wait = request_throttle.wait(client, settings.WEBHOOK_RATE)
    if wait is not None:
        raise RejectedDelivery(429, "Too many deliveries. Try again later.", wait=wait)
    delivery.precheck(hook, request)
    body = raw_body(request)
    delivery.verify(hook, request, body)
    payload = payload_of(request, body)
    response = delivery.handshake(hook, payload)
    if response is not None:
        return HttpResponse(response, content_type="text/plain; charset=utf-8")
    ids = delivery.accept(hook, request.headers, payload)
    return JsonResponse({"ids": ids}, status=202) if ids else HttpResponse(status=204)


def _error(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": message}, status=status)
