"""The server's log: one JSON object per line, for people and programs."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from datetime import UTC, datetime

log = logging.getLogger("derain.serve")

SANE = re.compile(r"[\w.-]{1,64}", re.ASCII)


def log_event(event: str, **facts: object) -> None:
    """Logs an event: {"time": ..., "event": event, ...}.

    Neither tokens nor full ids of jobs belong here: anybody who knows an id may see the job.
    """
    if log.isEnabledFor(logging.INFO):
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        log.info("%s", json.dumps({"time": time, "event": event, **facts}, ensure_ascii=False))


def to_stderr() -> None:
    """Sends the log to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def short(job_id: str) -> str:
    """The start of a job's id: enough to tell jobs apart in a log, but not to access one."""
    return job_id[:6]


def request_id(given: str) -> str:
    """The client's id for its request if that is harmless, otherwise a new one."""
    return given if SANE.fullmatch(given) else secrets.token_hex(8)
