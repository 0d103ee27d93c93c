"""``AsyncRun``: publishing from asyncio code."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Optional, Sequence, Type, Union

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ._core import (
    TERMINAL,
    Publisher,
    RunClosed,
    RuncastError,
    Word,
    encode,
    ending,
    log_data,
    redis_url,
    status_data,
)

logger = logging.getLogger("runcast")


class AsyncRun:
    """``Run`` for asyncio: the same arguments, every call is awaited.

    Calls made at the same time are published in the order they were made.
    """

    def __init__(
        self,
        run_id: Optional[str] = None,
        url: Optional[str] = None,
        *,
        client: Union["redis.Redis", "redis.RedisCluster", None] = None,
        producer: Optional[str] = None,
        restart: bool = False,
        retry_for: float = 30.0,
        prefix: str = "run:",
        options: Sequence[Word] = (),
        echo: Optional[bool] = None,
        traceparent: Optional[str] = None,
    ) -> None:
        self._owned = client is None
        self._publisher = Publisher(
            run_id,
            producer,
            prefix,
            options,
            restart,
            retry_for,
            not self._owned,
            echo,
            traceparent,
        )
        # It is we who try again.
        self._client: Any = client or redis.Redis.from_url(
            redis_url(url), socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )
        self._lock = asyncio.Lock()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._publisher.run_id

    @property
    def traceparent(self) -> Optional[str]:
        """What the deliveries of the next events belong to."""
        return self._publisher.traceparent

    @traceparent.setter
    def traceparent(self, traceparent: Optional[str]) -> None:
        self._publisher.traceparent = traceparent

    async def output(self, data: Any, source: str = "stdout") -> str:
        """Publishes what the agent produced: text, JSON or bytes."""
        return await self.publish("output", data, source)

    async def status(self, status: str, **fields: Any) -> str:
        """Publishes that the run's state changed; a terminal one ends it."""
        event_id = await self.publish("status", status_data(status, fields))
        if status.lower() in TERMINAL:
            self._publisher.ended = True
        return event_id

    async def log(self, level: str, message: str, source: str = "agent", **fields: Any) -> str:
        """Publishes a log line: trace, debug, info, warn, error or fatal."""
        return await self.publish("log", log_data(level, message, fields), source)

    async def publish(self, kind: str, data: Any, source: str = "") -> str:
        """Publishes an event of any kind; returns its id. Raises as ``Run``."""
        payload = encode(data)
        async with self._lock:
            attempt = self._publisher.begin(kind, source, payload)
            while True:
                try:
                    answer = await self._client.execute_command("FCALL", *attempt.words)
                except exceptions.RedisError as error:
                    await asyncio.sleep(self._publisher.should_retry(attempt, error))
                else:
                    return self._publisher.settle(attempt, answer)

    async def close(self) -> None:
        """Closes the connection to Redis, unless the client is your own."""
        if self._owned:
            await self._client.aclose()

    async def __aenter__(self) -> "AsyncRun":
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            await self._end(error)
        finally:
            await self.close()

    async def _end(self, error: Optional[BaseException]) -> None:
        if self._publisher.ended:
            return
        cancelled = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
        status, fields = ending(error, isinstance(error, cancelled))
        try:
            await self.status(status, **fields)
        except RunClosed:
            logger.warning("run %s was ended by somebody else", self.run_id)
        except RuncastError:
            if error is None:
                raise
            # The block's own error matters more.
            logger.exception("run %s: its end was not published", self.run_id)
