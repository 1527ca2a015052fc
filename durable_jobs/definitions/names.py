"""Rules for the names of events, functions, steps and signals."""

from __future__ import annotations

from durable_jobs.exceptions import ConfigurationError

MAX_LENGTH = 255
WEBHOOK = "webhook/"
#: Prefixes of the names of this package's own events.
RESERVED = ("durable/", "inngest/", WEBHOOK)


def check_name(name: object, what: str) -> str:
    """Return ``name`` if it has 1 to 255 printable characters.

    Raise ``ConfigurationError`` otherwise.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_LENGTH:
        msg = f"Expected {what} of 1 to {MAX_LENGTH} characters, got {name!r:.80}."
        raise ConfigurationError(msg)
    if not name.isprintable() or name != name.strip():
        msg = (
            f"Expected {what} of printable characters, without surrounding spaces, "
            f"got {name!r:.80}."
        )
        raise ConfigurationError(msg)
    return name


def check_event_name(name: object, *, allow_reserved: bool = False) -> str:
    """Return ``name`` if it is a valid event name. Raise if it is invalid."""
    checked = check_name(name, "an event name")
    if not allow_reserved and checked.startswith(RESERVED):
        msg = (
            f"Event names that start with {', '.join(map(repr, RESERVED))} are "
            f"reserved, got {checked!r}."
        )
        raise ConfigurationError(msg)
    if "*" in checked:
        msg = f"Expected the name of one event, without a wildcard, got {checked!r}."
        raise ConfigurationError(msg)
    return checked


def check_event_pattern(name: object, where: str) -> str:
    """Return ``name`` if it is a valid pattern, which may end in ``/*`` or ``.*``."""
    checked = check_name(name, f"{where}: an event name")
    stem = checked[:-1] if checked.endswith(("/*", ".*")) else checked
    if "*" in stem:
        msg = (
            f"{where}: a wildcard may only end a name, after '/' or '.', "
            f"got {checked!r}."
        )
        raise ConfigurationError(msg)
    return checked


def pattern_overlaps(pattern: str, prefix: str) -> bool:
    """Return whether ``pattern`` can match a name that starts with ``prefix``."""
    if pattern.endswith("*"):
        stem = pattern[:-1]
        return stem.startswith(prefix) or prefix.startswith(stem)
    return pattern.startswith(prefix)


def pattern_matches(pattern: str, name: str) -> bool:
    """Return whether ``pattern`` matches the event name."""
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return pattern == name
