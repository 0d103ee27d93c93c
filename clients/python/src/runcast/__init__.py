"""Publishes what an agent does durably to Runcast, through Redis.

    run = runcast.Run("42")
    run.output({"step": 1})

Every event is numbered, so that one that is sent again after a broken
connection is no second event. See README.md.
"""

from ._asyncio import AsyncRun
from ._core import (
    EventTooLarge,
    Fenced,
    FunctionMissing,
    NotPublished,
    RunClosed,
    RuncastError,
)
from ._library import load_function
from ._logging import RunHandler
from ._sync import Run

__all__ = [
    "AsyncRun",
    "EventTooLarge",
    "Fenced",
    "FunctionMissing",
    "NotPublished",
    "Run",
    "RunClosed",
    "RunHandler",
    "RuncastError",
    "load_function",
]
