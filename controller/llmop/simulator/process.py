"""What the simulator says on its standard output, and its sudden end."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from .faults import Faults


def say(line: str) -> None:
    """One line on standard output, at once. Never a prompt, an answer or a key."""
    print(f"simulator: {line}", flush=True)


def crash(faults: Faults, place: str) -> NoReturn:
    """End the process without any cleaning up, as an engine that crashes does."""
    status = int(faults.number("exit-code", 1))
    say(f"crash at {place} (simulated fault), exit status {status}")
    sys.stderr.flush()
    os._exit(status)
