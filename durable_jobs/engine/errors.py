"""Errors as data: what is recorded is what is raised, at first and on every replay."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

from durable_jobs import exceptions
from durable_jobs.exceptions import (
    ConfigurationError,
    DurableError,
    LimitExceeded,
    NonRetriable,
    PayloadError,
    RemoteFailed,
    StepError,
    StepFailed,
)
from durable_jobs.serialization import own_copy
from durable_jobs.serialization.texts import storable_text

MAX_TYPE = 200
MAX_MESSAGE = 4_000
MAX_TRACEBACK = 16_000
MAX_ARGS = 10

#: Errors that another attempt cannot mend.
FINAL = (NonRetriable, ConfigurationError, PayloadError, LimitExceeded, StepError)

Record = dict[str, Any]


def describe(error: BaseException) -> Record:
    """Return an error as JSON: its type, message, and traceback without values."""
    if isinstance(error, StepError):
        described: Record = {
            "type": error.error_type,
            "message": storable_text(message_of(error), MAX_MESSAGE),
        }
        if error.step:
            described["step"] = error.step
    elif isinstance(error, RemoteFailed):
        described = {
            "type": storable_text(error.error_type, MAX_TYPE),
            "message": storable_text(message_of(error), MAX_MESSAGE),
            "traceback": storable_text(error.stack, MAX_TRACEBACK),
        }
        if error.data is not None:
            described["data"] = error.data
        return described
    else:
        described = {
            "type": type(error).__name__,
            "message": storable_text(message_of(error), MAX_MESSAGE),
            "class": f"{type(error).__module__}:{type(error).__qualname__}",
        }
        args = _plain_args(error)
        if args != [described["message"]]:
            described["args"] = args
    described["traceback"] = storable_text(_trace(error), MAX_TRACEBACK)
    return described


def _plain_args(error: BaseException) -> list[Any]:
    """Return what an error was made of, or its message where that is not plain."""
    message = storable_text(message_of(error), MAX_MESSAGE)
    for one in error.args:
        plain = one is None or type(one) in (bool, int, str)
        if not plain or (text := str(one)) != storable_text(text, MAX_MESSAGE):
            return [message]
    return list(error.args[:MAX_ARGS]) or [message]


def message_of(error: BaseException) -> str:
    """Return what an error says, whatever its ``__str__`` does."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # a broken __str__ must not hide the error
        return f"<{type(error).__name__} whose text cannot be made>"


def _trace(error: BaseException) -> str:
    trace = _outside(error.__traceback__)
    lines = traceback.format_exception(type(error), error, trace, chain=True)
    return "".join(lines)


def exc_info(error: BaseException) -> tuple[Any, ...]:
    """Return an error for a log record, without the engine's frames at the top."""
    return (type(error), error, _outside(error.__traceback__))


def _outside(trace: TracebackType | None) -> TracebackType | None:
    """Skip the engine's own frames at the top: the reader's code comes first."""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if not str(name).startswith(("durable_jobs.", "asgiref", "concurrent")):
            break
        trace = trace.tb_next
    return trace


def rebuild(record: Record, name: str, key: str) -> DurableError:
    """Return the error that a step raises, made from its record alone."""
    kind = getattr(exceptions, record.get("raise", "StepFailed"), StepFailed)
    error: StepError = kind(
        str(record.get("message", "")),
        error_type=record.get("type", "Error"),
        step=key,
    )
    error.data = own_copy(record.get("data"))
    if isinstance(error, exceptions.BatchError):
        error.results = own_copy(record.get("results"))
    error.__cause__ = _original(record)
    return error


def _original(record: Record) -> BaseException | None:
    """Make the original error again where its class is at hand; nothing is imported."""
    module, _, qualname = str(record.get("class", "")).partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    try:
        args = tuple(record.get("args", [record.get("message", "")]))
        original = found.__new__(found, *args)
        original.args = args
    except Exception:  # noqa: BLE001  # whatever a foreign class does in it
        return None
    return original
