"""Texts that are not ours: made so that every database can store them."""

from __future__ import annotations


def storable_text(text: str, limit: int = 4_000) -> str:
    """Return text without NUL and lone surrogates, cut to ``limit`` characters."""
    safe = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"
