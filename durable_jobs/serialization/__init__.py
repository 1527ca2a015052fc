"""The one JSON codec: what is stored comes back equal, in value and in type.

JSON has no tuples, dates or big integers, and the databases bend some of what it has
(PostgreSQL's ``jsonb`` turns 1e20 into an integer). So everything that JSON would not
keep is written as a *tag*, ``{"$durable": kind, "value": ...}``; a dict of the user
that has the key ``"$durable"`` is a tag itself. Exact types come back as they were; a
subclass of a builtin (``SafeString``, ``OrderedDict``) comes back as that builtin.

``loads`` and ``from_tree`` are for what ``dumps`` and ``to_tree`` made. JSON from
outside goes through ``json.loads`` first and is then a value like others: that way
nobody outside can write a tag. No tag imports anything: classes are looked up among the
modules that are imported already, and have to be of the kind that the tag says.
"""

from __future__ import annotations

from durable_jobs.serialization.arguments import arguments_text
from durable_jobs.serialization.canonical import canonical
from durable_jobs.serialization.codec import dumps, from_tree, loads, to_tree
from durable_jobs.serialization.copies import own_copy
from durable_jobs.serialization.decoding import unknown_tags
from durable_jobs.serialization.tags import UnknownTag

__all__ = [
    "UnknownTag",
    "arguments_text",
    "canonical",
    "dumps",
    "from_tree",
    "loads",
    "own_copy",
    "to_tree",
    "unknown_tags",
]
