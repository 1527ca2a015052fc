"""What a statement does: change the session, change the search path or role, or write.

The patterns may match too much, which costs a new connection. They match no text
inside of values, because statements are checked before their parameters are inserted.
"""

from __future__ import annotations

import functools
import re

#: Statements that change the session for later users of the connection.
_CHANGES = re.compile(
    r"""
    (?:^|;) \s* (?: --[^\n]*\n\s* | /\*.*?\*/\s* )*
    (?: SET \s+ (?!LOCAL\b|CONSTRAINTS?\b|TRANSACTION\b)
      | (?:RESET|DISCARD|DO|LISTEN|LOAD|PREPARE|ATTACH|USE) \b
      | PRAGMA \s+ [\w.]+ \s* [=(]
      | CREATE \s+ (?:GLOBAL\s+|LOCAL\s+)? TEMP
    )
    | \bINTO \s+ TEMP
    | \bpg_(?:try_)?advisory_lock | \bGET_LOCK \s* \(
    | \bset_config \s* \( (?! [^;]*, \s* true \s* \) )
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

#: Statements with more characters are searched each time.
MAX_REMEMBERED = 5000

#: Statements that write.
_WRITES = re.compile(
    r"""
    \s* (?: --[^\n]*\n\s* | /\*.*?\*/\s* )*
    (?: (?:INSERT|UPDATE|DELETE|MERGE|REPLACE|TRUNCATE|CREATE|ALTER|DROP|COPY) \b
      | WITH \b .* \b (?:INSERT|UPDATE|DELETE|MERGE) \b
    )
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

#: Statements that may change the search path or the role for the engine.
_SCOPES = re.compile(
    r"""
    (?:^|;) \s* (?: --[^\n]*\n\s* | /\*.*?\*/\s* )* (?:SET|RESET|DISCARD|DO) \s
    | \bset_config \s* \(
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def changes_session(text: str) -> bool:
    """Return whether a statement changes the session.

    Most statements are executed again and again, and the search takes 0.2 ms.
    """
    if len(text) > MAX_REMEMBERED:
        return _CHANGES.search(text) is not None
    return _remembered_changes(text)


@functools.lru_cache(maxsize=1000)
def _remembered_changes(text: str) -> bool:
    return _CHANGES.search(text) is not None


def may_change_scope(text: str) -> bool:
    """Return whether a statement may change the search path or the role."""
    return _SCOPES.search(text) is not None


def writes(text: str) -> bool:
    """Return whether a statement writes."""
    return _WRITES.match(text) is not None
