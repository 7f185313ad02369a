"""Structured logs: one JSON object a line, without prompts and answers unless asked."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

LOGGER = logging.getLogger("baco_integrations.server")


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON; ``extra={"facts": {...}}`` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # as ASCII, which any terminal and file takes


def log_request(
    scope: Mapping[str, Any], its_id: str, status: int, seconds: float, facts: Mapping[str, Any]
) -> None:
    """Log a request that has been answered."""
    told = {
        "id": its_id,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status,
        "seconds": round(seconds, 4),
        **facts,
    }
    quiet = scope["path"] in ("/health", "/metrics")
    LOGGER.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"facts": told})


@contextmanager
def logs_to_stderr() -> Iterator[None]:
    """Write this package's and uvicorn's logs to standard error as lines of JSON, for a while."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in ("baco_integrations", "uvicorn")]
    before = [(each.handlers, each.propagate, each.level) for each in loggers]
    disabled = logging.root.manager.disable
    logging.disable(logging.NOTSET)  # commands keep logs away; here they are asked for
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.disable(disabled)
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
