"""What a call says, and what its answer means. No input or output here."""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from redis import exceptions

Word = Union[str, bytes, int]

RUN_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
PRODUCER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FUNCTION = "runcast_publish"
# The words that end a run, unless a broker is told others.
TERMINAL = frozenset(
    ["completed", "succeeded", "failed", "cancelled", "canceled", "error", "timeout"]
)
# Answers of a Redis that is starting, failing over or being resharded.
PASSING = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED")
BACKOFF_MIN, BACKOFF_MAX = 0.01, 1.0


class RuncastError(Exception):
    """An event was not published, or nobody knows whether it was."""


class NotPublished(RuncastError):
    """Redis could not be asked in time: the event may be there or not.

    If it is not, the next event of this publisher makes clients see a gap.
    """


class RunClosed(RuncastError):
    """The run is over and its grace, too: nothing is accepted any more."""


class EventTooLarge(RuncastError):
    """The event is larger than the limit (256 KiB unless told otherwise)."""


class Fenced(RuncastError):
    """A newer process publishes under the same producer name: stop."""


class FunctionMissing(RuncastError):
    """Redis does not know the function that brokers load when they start."""


def encode(data: Any) -> bytes:
    """Returns ``data`` as it is published: bytes as they are, all else as JSON."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Half of a surrogate pair (of an odd file name) has no UTF-8.
    return text.encode("utf-8", "replace")


def echo_line(payload: bytes) -> None:
    """Prints what is published as a line: so the pod's log has it, too, and
    brokers go on from there while Redis is away."""
    sys.stdout.write(payload.decode("utf-8", "backslashreplace") + "\n")
    sys.stdout.flush()


def redis_url(url: Optional[str]) -> str:
    """Returns the Redis of the brokers, as the environment names it."""
    environment = os.environ
    named = url or environment.get("RUNCAST__REDIS__URL") or environment.get("REDIS_URL")
    return named or "redis://127.0.0.1:6379"


def ending(error: Optional[BaseException], cancelled: bool) -> Tuple[str, Dict[str, Any]]:
    """Returns the terminal status of a ``with`` block, and its fields."""
    if error is None:
        return "completed", {}
    if cancelled:
        return "cancelled", {}
    if isinstance(error, SystemExit):
        if error.code in (None, 0):
            return "completed", {}
        code = error.code if isinstance(error.code, int) else 1
        return "failed", {"exit_code": code}
    return "failed", {"error": f"{type(error).__name__}: {error}"[:4096]}


class Publisher:
    """One publisher of one run: its name, its epoch, its numbers.

    ``begin`` names the next call, ``settle`` reads its answer and
    ``should_retry`` an error. Not thread-safe: its callers hold a lock over
    all three, since numbers have to reach Redis in their order.
    """

    def __init__(
        self,
        run_id: Optional[str],
        producer: Optional[str],
        prefix: str,
        options: Sequence[Word],
        restart: bool,
        retry_for: float,
        resends: bool,
        echo: Optional[bool],
        traceparent: Optional[str],
    ) -> None:
        run_id = run_id if run_id is not None else os.environ.get("RUNCAST_RUN_ID", "")
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(
                f"run id {run_id!r}: 1-128 of A-Z a-z 0-9 . _ -, the first and last a letter or digit"
            )
        if producer is not None and not PRODUCER_ID.fullmatch(producer):
            raise ValueError(f"producer {producer!r}: 1-64 of A-Z a-z 0-9 . _ -")
        self.run_id = run_id
        self.retry_for = retry_for
        self.ended = False
        self.traceparent = traceparent
        self._knows_traces = True
        # A client of somebody's own may send a call again by itself.
        self._resends = resends
        self._echo = os.environ.get("RUNCAST_ECHO") == "1" if echo is None else echo
        self._named = producer
        self._keys = (f"{prefix}{{{run_id}}}:stream", f"{prefix}{{{run_id}}}:meta")
        self._options = list(options)
        self._restart = restart
        self._known = False
        self._identify()

    def _identify(self) -> None:
        self._pid = os.getpid()
        self._producer = self._named or f"py-{secrets.token_hex(8)}"
        self._epoch = time.time_ns() // 1_000_000
        self._seq = 0

    def begin(self, kind: str, source: str, payload: bytes) -> "Attempt":
        """Names the next call and takes a number for it."""
        if os.getpid() != self._pid:
            # A fork: with its parent's numbers its events would count as
            # repetitions. One with a name of its own fences its parent.
            self._identify()
        if self._echo and kind != "status":
            echo_line(payload)
        self._seq += 1
        words: List[Word] = [FUNCTION, 2, *self._keys, self.run_id, kind, source, payload]
        words += self._options
        if self._restart:
            words.append("RESTART")
        words += ["PRODUCER", self._producer, self._epoch, self._seq]
        if self.traceparent and self._knows_traces:
            words += ["TRACE", self.traceparent]
        return Attempt(words, time.monotonic() + self.retry_for)

    def settle(self, attempt: "Attempt", answer: Sequence[Any]) -> str:
        """Returns the event's id, or raises what the answer says."""
        word, detail = (_text(part) for part in answer[:2])
        if word == "DUP" and not (attempt.uncertain or self._resends):
            # Sent once and seen before: the numbers are somebody else's too.
            raise Fenced(f"another process publishes as producer {self._producer!r} right now")
        if word in ("OK", "DUP"):
            self._known = True
            self._restart = False
            return detail
        # Not accepted, so the number is still free. If it were left out,
        # clients would be told of a loss that the caller knows of.
        self._seq -= 1
        if word == "TOO_LARGE":
            raise EventTooLarge(f"the event is larger than {detail} bytes")
        if word == "CLOSED":
            self.ended = True
            raise RunClosed(f"run {self.run_id} is over (its last event is {detail})")
        if word == "FENCED":
            raise Fenced(f"a newer process publishes as producer {self._producer!r}")
        raise RuncastError(f"unknown answer {word!r}")

    def should_retry(self, attempt: "Attempt", error: exceptions.RedisError) -> float:
        """Returns how many seconds to wait before the same call is made
        again, or raises why it is of no use."""
        text = str(error)
        if "unknown option TRACE" in text and attempt.words[-2] == "TRACE":
            # A function that knows no traces yet: the event matters more.
            self._knows_traces = False
            del attempt.words[-2:]
            return 0.0
        missing = "Function not found" in text
        # AuthenticationError is a ConnectionError, too, and does not pass.
        broken = isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError))
        broken = broken and not isinstance(error, exceptions.AuthenticationError)
        attempt.uncertain |= broken
        passing = broken or text.startswith(PASSING)
        # Redis lost it in a restart; a broker loads it again.
        passing = passing or (missing and self._known)
        wait = attempt.wait()
        if passing and time.monotonic() + wait < attempt.deadline:
            return wait
        if not attempt.uncertain:
            self._seq -= 1
        if missing:
            raise FunctionMissing(
                "Redis does not know runcast_publish: a broker loads it when it starts;"
                " without one, call runcast.load_function(client, path_of_runcast_lua)"
            ) from error
        if passing:
            raise NotPublished(f"no answer from Redis for {self.retry_for:g} s: {text}") from error
        raise RuncastError(text) from error


class Attempt:
    """One event on its way."""

    def __init__(self, words: List[Word], deadline: float) -> None:
        self.words = words
        self.deadline = deadline
        self.failures = 0
        # Redis may have taken it although no answer came.
        self.uncertain = False

    def wait(self) -> float:
        """Counts a failure; returns a growing time with some chance in it."""
        self.failures += 1
        grown = BACKOFF_MIN * 2 ** min(self.failures - 1, 10)
        wait: float = min(BACKOFF_MAX, grown) * (0.5 + random.random() / 2)
        return wait


def status_data(status: str, fields: Mapping[str, Any]) -> Any:
    """Returns the data of a status: the word, or an object if there is more."""
    return {"status": status, **fields} if fields else status


def log_data(level: str, message: str, fields: Mapping[str, Any]) -> Any:
    """Returns the data of a log event."""
    return {"level": level, "msg": message, **fields}


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)
