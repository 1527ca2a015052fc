"""Errors as JSON.

A step raises the error made from its record, at first and on replay.
"""

from __future__ import annotations

import importlib
import json
import sys
from types import TracebackType
from typing import Any

from durable_jobs import exceptions
from durable_jobs.control_flow import reraise_control, traceback_of
from durable_jobs.error_text import (
    BODY_TRACEBACK,
    MAX_TRACEBACK,
    MAX_TYPE,
    ErrorRecord,
    is_engine,
    message_of,
    module_of,
    storable_text,
    summary_of,
    traceback_text,
    type_of,
)
from durable_jobs.exceptions import (
    ConfigurationError,
    DurableError,
    LimitExceeded,
    NonRetriableError,
    PayloadError,
    RemoteFailed,
    StepError,
    StepFailed,
)
from durable_jobs.serialization import private_copy

MAX_ARGS = 10
#: Characters of JSON that are kept of the error data of a remote app.
MAX_DATA = 64_000

#: Errors without a retry: another attempt would fail the same way.
FINAL = (NonRetriableError, ConfigurationError, PayloadError, LimitExceeded, StepError)


def describe_error(error: BaseException) -> ErrorRecord:
    """Return an error as JSON: its type, message, and traceback without values.

    This works for every error, even if code of its class raises.
    """
    try:
        return _described(error)
    except BaseException as failure:  # noqa: BLE001  # its class may raise anything
        reraise_control(failure)
        return {
            "type": type_of(error),
            "message": message_of(error),
            "traceback": traceback_text(error),
        }


def _described(error: BaseException) -> ErrorRecord:
    kind = type(error)
    described: ErrorRecord = {"type": type_of(error), "message": message_of(error)}
    if issubclass(kind, StepError | RemoteFailed):
        described["type"] = _string_attribute(error, "error_type") or described["type"]
    if issubclass(kind, RemoteFailed):
        described["traceback"] = _string_attribute(error, "stack", MAX_TRACEBACK)
        data = _data(error)
        if data is not None:
            described["data"] = data
        return described
    if issubclass(kind, StepError):
        step = _string_attribute(error, "step")
        if step:
            described["step"] = step
    else:
        described |= original_of(error)
    described["traceback"] = traceback_text(error)
    return described


def _string_attribute(error: BaseException, name: str, limit: int = MAX_TYPE) -> str:
    value = getattr(error, name, "")
    return storable_text(value, limit) if isinstance(value, str) else ""


def _data(error: BaseException) -> Any:
    """Return the data of an error; None if it is no JSON or too large."""
    try:
        text = json.dumps(getattr(error, "data", None), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return json.loads(text) if len(text) <= MAX_DATA else None


def original_of(error: BaseException) -> ErrorRecord:
    """Return the class and arguments of an error, if it can be rebuilt from them.

    The class is called with the arguments, as pickle does. The result must equal the
    error in everything that pickle reads, or the record names no class.
    """
    message = message_of(error)
    try:
        name = f"{module_of(type(error))}:{type(error).__qualname__}"
        reduced = _reduced(error)
        if reduced is None:
            return {}
        args = list(reduced[1])
        rebuilt = _construct(type(error), args)
        if (
            rebuilt is None
            or _reduced(rebuilt) != reduced
            or message_of(rebuilt) != message
        ):
            return {}
    except BaseException as failure:  # noqa: BLE001  # its class may raise anything
        reraise_control(failure)
        return {}
    if name != storable_text(name, 2 * MAX_TYPE):
        return {}
    return {"class": name} if args == [message] else {"class": name, "args": args}


def _reduced(error: BaseException) -> tuple[Any, ...] | None:
    """Return class, arguments and state of an error as pickle reads them, if plain."""
    reduced = error.__reduce_ex__(2)
    if type(reduced) is not tuple or not 2 <= len(reduced) <= 3:
        return None
    kind, args, state = (*reduced, None)[:3]
    if kind is not type(error) or type(args) is not tuple or len(args) > MAX_ARGS:
        return None
    if type(state) is dict:  # notes do not count
        state = {name: state[name] for name in state if name != "__notes__"} or None
    return (kind, args, state) if all(_is_plain(value) for value in args) else None


def _is_plain(value: Any) -> bool:
    if type(value) is str:
        return value == storable_text(value)
    if type(value) is int:
        return value.bit_length() <= 1024
    return value is None or type(value) is bool


def _construct(kind: type[BaseException], args: list[Any]) -> Exception | None:
    """Return the error that ``kind`` creates; None if it creates another type."""
    made = kind(*args)
    return made if type(made) is kind and isinstance(made, Exception) else None


def exc_info(error: BaseException) -> tuple[Any, ...]:
    """Return an error for a log record, without engine frames at the top."""
    return (type(error), error, _without_engine_frames(traceback_of(error)))


def _without_engine_frames(trace: TracebackType | None) -> TracebackType | None:
    """Skip engine frames at the top, so that your project's code comes first."""
    while trace is not None:
        if not is_engine(trace):
            break
        trace = trace.tb_next
    return trace


def rebuild(error_record: ErrorRecord, name: str, key: str) -> DurableError:
    """Return the error that a step raises, made from its record alone."""
    kind = getattr(exceptions, str(error_record.get("raise", "StepFailed")), StepFailed)
    if not (isinstance(kind, type) and issubclass(kind, StepError)):
        kind = StepFailed
    error: StepError = kind(
        str(error_record.get("message", "")),
        error_type=error_record.get("type", "Error"),
        step=key,
    )
    error.data = private_copy(error_record.get("data"))
    if isinstance(error, exceptions.ParallelError):
        error.results = private_copy(error_record.get("results"))
    error.__cause__ = _original(error_record)
    vars(error)[BODY_TRACEBACK] = error_record.get("traceback") or ""
    return error


def _original(error_record: ErrorRecord) -> BaseException | None:
    """Rebuild the original error by its class; None if that is not possible."""
    module, _, qualname = str(error_record.get("class", "")).partition(":")
    if not module or not qualname:
        return None
    message = error_record.get("message", "")
    try:
        target: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in qualname.split("."):
            target = getattr(target, part)
        if not (isinstance(target, type) and issubclass(target, Exception)):
            return None
        original = _construct(target, list(error_record.get("args", [message])))
    except BaseException as failure:  # noqa: BLE001  # code of the class may raise anything
        reraise_control(failure)
        return None
    if original is None or message_of(original) != message:
        return None
    return original


__all__ = [
    "FINAL",
    "ErrorRecord",
    "describe_error",
    "message_of",
    "original_of",
    "rebuild",
    "summary_of",
    "traceback_text",
]
