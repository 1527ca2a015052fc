"""The middleware that makes the tests' pages as strict as the strictest project's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

POLICY = "default-src 'self'; frame-ancestors 'none'; form-action 'self'"


class Strict:
    """Send a policy that forbids inline code and other origins."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Return the response with the policy."""
        response = self._get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response
