"""Read models for the admin, the API and the commands. They never lock or write."""

from __future__ import annotations
