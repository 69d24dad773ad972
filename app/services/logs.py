"""Logs: one JSON object a line on standard error, ours and everybody else's alike.

No line holds a phone number, a token or a body. Ours name none; of others' words only the first line is taken, and what
looks like a number is masked in it; of an error its types and where in our code it came from, never its text, which may
quote what was sent.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import BinaryIO, cast

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

REQUEST: ContextVar[str | None] = ContextVar("request", default=None)
"""The id of the request that is being answered: it stands in every line written meanwhile."""
FRAMES_MOST = 5
_OURS = Path(__file__).parents[1]
_NUMBER = re.compile(r"((?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]))|\d(?:[ ().-]{0,2}\d){6,}")
"""As people write one; or, as its first group, an address, which is none."""
_LONGEST = 300


def configure(level: str = "info", to: BinaryIO | None = None) -> None:
    """From here on everything that this process logs is a line of JSON, on standard error unless `to` is given."""
    structlog.configure(
        processors=[_request, structlog.processors.add_log_level, _terse, _stamp, _json],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", _Lossy(to or _standard_error()))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Others()], level=level.upper(), force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for chatty in ("asyncio", "alembic", "httpcore", "httpx", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def frames(trace: TracebackType | None) -> list[str]:
    """Where in our own code an error came from, innermost first: `services/store/receipts.py:44 add_keys`."""
    found = [
        f"{Path(file).relative_to(_OURS)}:{line} {frame.f_code.co_name}"
        for frame, line in walk_tb(trace)
        if (file := frame.f_code.co_filename).startswith(str(_OURS))
    ]
    return found[: -FRAMES_MOST - 1 : -1]


def masked(text: str) -> str:
    """A text that others chose, without what looks like a number."""
    return _NUMBER.sub(lambda found: found[1] or "***", text)


def types_of(error: BaseException) -> list[str]:
    """An error's type and those of its causes, each with PostgreSQL's own code where it has one."""
    return [_named(one) for one in _causes(error)]


def error_fields(error: BaseException) -> dict[str, list[str]]:
    return {"error": types_of(error), "frames": frames(error.__traceback__)}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _named(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if isinstance(state, str) else type(error).__name__


# The pipeline ------------------------------------------------------------------------------------------------------


class _Lossy:
    """Where lines go: a full disk, a closed pipe, a terminal that has gone. What cannot be written there is lost, and
    nothing else with it.
    """

    def __init__(self, to: BinaryIO | None) -> None:
        self._to = to

    def write(self, line: bytes) -> None:
        with suppress(OSError, ValueError):
            if self._to:
                self._to.write(line)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._to:
                self._to.flush()


def _standard_error() -> BinaryIO | None:
    """Without a buffer: what it could not write it would keep, and end us with code 120 for it."""
    buffer = sys.stderr.buffer if sys.stderr else None  # closed by whoever started us
    return getattr(buffer, "raw", buffer)


def _request(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if request := REQUEST.get():
        event.setdefault("request", request)
    return event


def _terse(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event.update(error_fields(error))
    return event


_now = structlog.processors.TimeStamper(fmt="iso", utc=True)


def _stamp(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Time, level and what happened come first: people read these lines too."""
    rest = dict(_now(logger, method, event))
    return {key: rest.pop(key) for key in ("timestamp", "level", "event")} | rest


def _json(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=lambda value: type(value).__name__)


class _Others(logging.Handler):
    """Lines of the standard library's loggers, uvicorn's and asyncio's above all, made ours."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, _plain(record.getMessage()), logger=record.name, exc_info=record.exc_info)


def _plain(text: str) -> str:
    first = text.strip().partition("\n")[0][:_LONGEST]
    return masked(first)
