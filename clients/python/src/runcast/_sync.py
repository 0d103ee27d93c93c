"""``Run``: publishing from ordinary code."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any, Optional, Sequence, Type, Union

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

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


class Run:
    """A run, to publish to. Thread-safe; each call returns the event's id
    once Redis has it.

    ``run_id``     without it, of the environment variable RUNCAST_RUN_ID
    ``url``        of Redis; else RUNCAST__REDIS__URL, REDIS_URL or localhost
    ``client``     a client of your own (Redis, RedisCluster, of a Sentinel)
    ``producer``   a name that outlives this process: a newer process under
                   it fences this one off. Random without it.
    ``restart``    begin a run anew that is over
    ``retry_for``  seconds for which an event is tried while Redis is away
    ``prefix``     the broker's redis.channel_prefix
    ``options``    further words of the call: ``["MAXLEN", 50000]``
    ``echo``       print outputs and logs as they are published, a line each;
                   else if RUNCAST_ECHO is 1
    ``traceparent``  of your span (W3C): brokers make the deliveries its children,
                   if it is recorded. Can be set anew at any time.

    As a context manager it publishes how the block ended: ``completed``,
    ``failed`` or ``cancelled`` (Ctrl-C), unless a terminal status was
    published in it.
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
        self._lock = threading.Lock()

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

    def output(self, data: Any, source: str = "stdout") -> str:
        """Publishes what the agent produced: text, JSON or bytes."""
        return self.publish("output", data, source)

    def status(self, status: str, **fields: Any) -> str:
        """Publishes that the run's state changed; a terminal one ends it."""
        event_id = self.publish("status", status_data(status, fields))
        if status.lower() in TERMINAL:
            self._publisher.ended = True
        return event_id

    def log(self, level: str, message: str, source: str = "agent", **fields: Any) -> str:
        """Publishes a log line: trace, debug, info, warn, error or fatal."""
        return self.publish("log", log_data(level, message, fields), source)

    def publish(self, kind: str, data: Any, source: str = "") -> str:
        """Publishes an event of any kind; returns its id.

        Raises a RuncastError if it was not accepted, ValueError or TypeError
        for data that is no JSON.
        """
        payload = encode(data)
        with self._lock:
            attempt = self._publisher.begin(kind, source, payload)
            while True:
                try:
                    answer = self._client.execute_command("FCALL", *attempt.words)
                except exceptions.RedisError as error:
                    time.sleep(self._publisher.should_retry(attempt, error))
                else:
                    return self._publisher.settle(attempt, answer)

    def close(self) -> None:
        """Closes the connection to Redis, unless the client is your own."""
        if self._owned:
            self._client.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            self._end(error)
        finally:
            self.close()

    def _end(self, error: Optional[BaseException]) -> None:
        if self._publisher.ended:
            return
        status, fields = ending(error, isinstance(error, (KeyboardInterrupt, GeneratorExit)))
        try:
            self.status(status, **fields)
        except RunClosed:
            logger.warning("run %s was ended by somebody else", self.run_id)
        except RuncastError:
            if error is None:
                raise
            # The block's own error matters more.
            logger.exception("run %s: its end was not published", self.run_id)
