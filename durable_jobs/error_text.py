"""The text of an exception, for any exception.

The class of an exception may be any code: its ``__str__``, attributes and traceback can
raise, never end, or be of any size. Every function here returns text that every
database can store, shortened to a stated length.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Any

from durable_jobs.control_flow import leaves, reraise_control, traceback_of

#: An error as JSON: its type, message, traceback, and what rebuilds it.
ErrorRecord = dict[str, Any]

MAX_TYPE = 200
MAX_MESSAGE = 4_000
MAX_TRACEBACK = 16_000

#: How many exceptions of a chain, and how many of a group, a traceback shows.
_LONGEST_CHAIN = 12
_WIDEST_GROUP = 15
_DEEPEST_GROUP = 5
_MOST_FRAMES = 400
_MOST_NOTES = 20
#: A larger group, or an exception with a longer text, is logged as a summary.
_MOST_LOGGED = 100
_LONGEST_LOGGED = 1_000_000

_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"

#: Modules whose frames between those of your project are folded.
ENGINE = ("durable_jobs", "asgiref", "concurrent.futures")


def storable_text(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return text without NUL and lone surrogates, cut to ``limit`` characters."""
    # First make a plain str of limited length, since the class may be any code.
    text = str.__getitem__(text, slice(0, limit + 1))
    safe = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"


def type_of(error: BaseException) -> str:
    """Return the class name of an exception."""
    return storable_text(_NAME.__get__(type(error)), MAX_TYPE)


_NAME: Any = type.__dict__["__name__"]


def message_of(error: BaseException, limit: int = MAX_MESSAGE) -> str:
    """Return the message of an exception."""
    try:
        return storable_text(str(error), limit)
    except BaseException as failure:  # noqa: BLE001  # its class may raise anything
        reraise_control(failure)
        return f"<{type_of(error)}: its message cannot be read>"


def summary_of(error: BaseException, limit: int = MAX_MESSAGE) -> str:
    """Return the class and the message of an exception in one line."""
    message = message_of(error, limit)
    name = type_of(error)
    return storable_text(f"{name}: {message}" if message else name, limit)


def last_lines(error: BaseException, limit: int = MAX_MESSAGE) -> str:
    """Return the last line of a traceback: the qualified class and the message."""
    message, name = message_of(error, limit), _qualified(type(error))
    return storable_text(f"{name}: {message}" if message else name, limit)


def loggable(error: BaseException) -> BaseException:
    """Return the exception, or a replacement if ``logging`` could not print it."""
    try:
        many = next(islice(leaves(error), _MOST_LOGGED, None), None) is not None
        if not many and _printed_length(error) <= _LONGEST_LOGGED:
            return error
    except BaseException as failure:  # noqa: BLE001  # its class may raise anything
        reraise_control(failure)
    like = RuntimeError(summary_of(error))
    like.__traceback__ = traceback_of(error)
    like.__suppress_context__ = True
    return like


def _printed_length(error: BaseException) -> int:
    lines = traceback.TracebackException.from_exception(error).format()
    return sum(len(line.encode()) for line in lines)  # as written to a file


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception, with the engine's frames folded.

    The engine's frames between your project's frames become one line. A failed step
    begins with the traceback that was recorded for its body.
    """
    try:
        text = "".join(_chain(error, 0))
    except BaseException as failure:  # noqa: BLE001  # its class may raise anything
        reraise_control(failure)
        text = f"{summary_of(error)}\n(The traceback cannot be read.)\n"
    return _cut(text)


def has_recorded_traceback(error: BaseException) -> bool:
    """Return whether the chain has an exception with a recorded traceback."""
    latest = error
    for _ in range(_LONGEST_CHAIN):
        found = _before(latest)
        if found is None:
            return False
        if isinstance(found[0], str):
            return True
        latest = found[0]
    return False


def _cut(text: str) -> str:
    """Shorten a long text in the middle: the ends of a traceback say most."""
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2 - 40
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n… {left_out} characters left out …\n{text[-half:]}"
    return storable_text(text, MAX_TRACEBACK)


def _chain(error: BaseException, depth: int) -> Iterator[str]:
    """Yield the text of an exception after the texts of its causes."""
    shown: list[tuple[BaseException | str, str]] = [(error, "")]
    seen = {id(error)}
    latest = error
    while (found := _before(latest)) is not None:
        before, link = found
        if isinstance(before, str):
            shown.append((before, link))
            break
        if id(before) in seen or len(shown) >= _LONGEST_CHAIN:
            shown.append(("… earlier exceptions are left out …\n", link))
            break
        shown.append((before, link))
        seen.add(id(before))
        latest = before
    for number in range(len(shown) - 1, -1, -1):
        what, link = shown[number]
        yield from [what] if isinstance(what, str) else _one(what, depth)
        if link:
            yield f"\n{link}\n\n"


def _before(error: BaseException) -> tuple[BaseException | str, str] | None:
    """Return the cause of an exception, or its recorded text, and the link text."""
    recorded = _DICT.__get__(error).get(BODY_TRACEBACK)
    if type(recorded) is str and recorded:
        return recorded if recorded.endswith("\n") else f"{recorded}\n", _CAUSE
    cause = _CAUSE_OF.__get__(error)
    if cause is not None:
        return cause, _CAUSE
    context = _CONTEXT_OF.__get__(error)
    if context is not None and not _SUPPRESSED.__get__(error):
        return context, _CONTEXT
    return None


#: The attribute of a failed step's exception with its recorded traceback.
BODY_TRACEBACK = "_body_traceback"

_DICT: Any = BaseException.__dict__["__dict__"]
_CAUSE_OF: Any = BaseException.__dict__["__cause__"]
_CONTEXT_OF: Any = BaseException.__dict__["__context__"]
_SUPPRESSED: Any = BaseException.__dict__["__suppress_context__"]


def _one(error: BaseException, depth: int) -> Iterator[str]:
    frames = list(_frames(traceback_of(error)))
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from frames
    yield from _last_lines(error)
    if issubclass(type(error), BaseExceptionGroup):
        yield from _group(error, depth)


def _last_lines(error: BaseException) -> Iterator[str]:
    kind = type(error)
    if issubclass(kind, SyntaxError):  # its text shows the place in the source
        try:
            yield from list(traceback.TracebackException(kind, error, None).format())
            return
        except BaseException as failure:  # noqa: BLE001  # its class may raise anything
            reraise_control(failure)
    message = message_of(error)
    name = _qualified(kind)
    yield f"{name}: {message}\n" if message else f"{name}\n"
    for note in _notes(error):
        yield f"{note}\n"


def _qualified(kind: type[BaseException]) -> str:
    """Return the name of a class as in tracebacks."""
    name = storable_text(_QUALNAME.__get__(kind), MAX_TYPE)
    module = module_of(kind)
    return name if module in ("builtins", "__main__", "") else f"{module}.{name}"


def module_of(kind: type[BaseException]) -> str:
    """Return the module of a class, or an empty string if it is not a string."""
    module = _MODULE.__get__(kind)
    return storable_text(module, MAX_TYPE) if isinstance(module, str) else ""


_MODULE: Any = type.__dict__["__module__"]
_QUALNAME: Any = type.__dict__["__qualname__"]


def _notes(error: BaseException) -> Iterator[str]:
    notes = _DICT.__get__(error).get("__notes__")
    if type(notes) not in (list, tuple):
        return
    for note in notes[:_MOST_NOTES]:
        if isinstance(note, str):
            yield storable_text(note)
    if len(notes) > _MOST_NOTES:
        yield f"… {len(notes) - _MOST_NOTES} notes left out …"


def _group(error: BaseException, depth: int) -> Iterator[str]:
    members = BaseExceptionGroup.exceptions.__get__(error)
    shown = members[:_WIDEST_GROUP] if depth < _DEEPEST_GROUP else ()
    for number, member in enumerate(shown, start=1):
        yield f"  +---------------- {number} ----------------\n"
        for line in "".join(_chain(member, depth + 1)).splitlines():
            yield f"  | {line}\n"
    if len(shown) < len(members):
        yield f"  … {len(members) - len(shown)} more exceptions of the group …\n"


def _frames(trace: TracebackType | None) -> Iterator[str]:
    """Yield the frames of a traceback, with the engine's frames folded."""
    engines, count = [], 0
    step = trace
    while step is not None:
        engines.append(is_engine(step))
        step, count = step.tb_next, count + 1
    if not count or trace is None:
        return
    summary = _extracted(trace)
    engines = engines[count - len(summary) :]
    if all(engines):
        engines = [False] * len(engines)
    start = engines.index(False)
    if len(summary) < count:
        yield f"  … {count - len(summary)} frames left out\n"
    while start < len(engines):
        end = start
        while end < len(engines) and engines[end] == engines[start]:
            end += 1
        if engines[start]:
            frames = "1 frame" if end - start == 1 else f"{end - start} frames"
            yield f"  … {frames} of durable_jobs\n"
        else:
            yield from _formatted(summary[start:end])
        start = end


def _extracted(trace: TracebackType) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(trace, limit=-_MOST_FRAMES))


def _formatted(frames: list[traceback.FrameSummary]) -> list[str]:
    try:
        return traceback.StackSummary.from_list(frames).format()
    except BaseException as failure:  # noqa: BLE001  # a loader without source
        reraise_control(failure)
        return [
            f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n'
            for frame in frames
        ]


def is_engine(step: TracebackType) -> bool:
    """Return whether a frame belongs to the engine."""
    name = dict.get(step.tb_frame.f_globals, "__name__", "")
    return type(name) is str and any(
        name == module or name.startswith(f"{module}.") for module in ENGINE
    )
