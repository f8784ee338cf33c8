"""When a session ends before the run does: after so many steps or hours, or because somebody asked it to."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError


class Stop:
    """Why training should stop now, in words, or None."""

    def __init__(self, max_steps: int | None, max_hours: float | None):
        """Raises UserError on a session of no step or no time."""
        if max_steps is not None and max_steps < 1:
            raise UserError(f"max_steps is {max_steps}, but must be at least 1")
        if max_hours is not None and not max_hours > 0:
            raise UserError(f"max_hours is {max_hours}, but must be above 0")
        self.started = time.monotonic()
        self.steps = 0
        self.reserve = 0.0  # seconds to keep free at the end of the hours, for a last checkpoint
        self.max_steps, self.max_hours = max_steps, max_hours
        self.signal_name: str | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def reason(self) -> str | None:
        if self.signal_name:
            return f"{self.signal_name} was received"
        if self.max_steps is not None and self.steps >= self.max_steps:
            return f"the {self.max_steps} steps of this session are done"
        if self.max_hours is not None and self.seconds >= 3600 * self.max_hours - self.reserve:
            return f"the {self.max_hours} hours of this session are over, but for the time to save"
        return None


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C (SIGINT) and SIGTERM set `stop` instead of ending the process, so that the step ends and is saved."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def note(number: int, _frame: object) -> None:
        stop.signal_name = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
