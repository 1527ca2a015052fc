"""The JSON codec: a value that is stored and loaded is equal, in value and in type.

JSON has no tuples, dates or big integers, and databases change some JSON values
(PostgreSQL's ``jsonb`` turns 1e20 into an integer). So every value that JSON would not
preserve is written as a *tag*, ``{"$durable": kind, "value": ...}``. A dict with the
key ``"$durable"`` is written as a tag too. Exact types are preserved. A subclass of a
builtin (``SafeString``, ``OrderedDict``) is loaded as that builtin.

``loads`` and ``from_tree`` read only the output of ``dumps`` and ``to_tree``. JSON from
outside is parsed by ``json.loads`` first and then stored like any other value, so
outside input cannot create a tag. Reading a tag imports nothing: its class must be in a
module that is already imported, and of the kind that the tag states.
"""

from __future__ import annotations

from durable_jobs.serialization.arguments import arguments_text
from durable_jobs.serialization.canonical import canonical
from durable_jobs.serialization.codec import dumps, from_tree, loads, to_tree
from durable_jobs.serialization.copies import private_copy
from durable_jobs.serialization.decoding import unknown_tags
from durable_jobs.serialization.tag_format import UnknownTag

__all__ = [
    "UnknownTag",
    "arguments_text",
    "canonical",
    "dumps",
    "from_tree",
    "loads",
    "private_copy",
    "to_tree",
    "unknown_tags",
]
