"""``RunHandler``: what goes to ``logging`` goes to the run, too."""

from __future__ import annotations

import logging
import threading

from ._sync import Run

# Whose records would come back here while one is being published.
OWN = ("runcast", "redis")
LEVELS = ((50, "fatal"), (40, "error"), (30, "warn"), (20, "info"), (10, "debug"))


class RunHandler(logging.Handler):
    """Publishes records as ``log`` events of ``run``.

        logging.getLogger().addHandler(runcast.RunHandler(run))

    ``source`` is the logger's name unless given. Records of ``runcast`` and
    ``redis`` themselves are left out. A record that cannot be published goes
    to ``logging``'s own error handling; the agent goes on.
    """

    def __init__(self, run: Run, source: str = "", level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._run = run
        self._source = source
        self._busy = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Publishes one record."""
        if record.name.split(".")[0] in OWN or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            level = next((word for least, word in LEVELS if record.levelno >= least), "trace")
            message = self.format(record)
            self._run.log(level, message, self._source or record.name, logger=record.name)
        except Exception:
            self.handleError(record)
        finally:
            self._busy.now = False
