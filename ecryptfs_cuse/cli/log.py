"""The log of a server: lines on standard error that nobody has to wait for.

A thread of its own writes them, so whoever has something to say never waits for the log's reader:
for a pipe that is full, or a terminal that was stopped with Ctrl-S. What does not fit meanwhile is
lost, and the log says how many lines that were.
"""

import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections import deque
from types import TracebackType

from ecryptfs_cuse.cli.streams import LIMIT, shown

logger = logging.getLogger(__name__)

QUEUED_MAX = 1 << 16
"""Bytes that wait for the log's reader at most."""

_PREFIX = "ecryptfs-cuse: "


class LineWriter:
    """Writes lines to a descriptor from a thread of its own, in order; never closes it.

    The thread starts with the first line, so that there is none before a fork. It keeps no process
    alive.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()  # held for moments only
        self._queue: deque[tuple[bytes, int]] = deque()  # how many lines each stands for
        self._size = 0
        self._lost = 0
        self._is_writing = False
        self._thread: threading.Thread | None = None

    def add(self, line: bytes) -> None:
        """Have a line written, or lost where the queue is full."""
        with self._changed:
            self._mention_lost()
            if self._size + len(line) > QUEUED_MAX:
                self._lost += 1
            else:
                self._append(line, 1)
            self._start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until all lines are written, for so long at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue and not self._is_writing, seconds)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads for us: the next line tries again
                self._thread = None

    def _run(self) -> None:
        # Signals are the main thread's. With SIGTTOU blocked, a terminal does not stop us.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                line, count = self._queue.popleft()
                self._size -= len(line)
                self._is_writing = True
            is_written = self._write(line)
            with self._changed:
                self._is_writing = False
                if not is_written:
                    self._lost += count
                elif not self._queue:
                    self._mention_lost()
                self._changed.notify_all()

    def _append(self, line: bytes, count: int) -> None:
        self._queue.append((line, count))
        self._size += len(line)

    def _mention_lost(self) -> None:
        what = "1 line was" if self._lost == 1 else f"{self._lost} lines were"
        line = shown(f"{_PREFIX}... {what} lost: the log was full\n")
        if self._lost and self._size + len(line) <= QUEUED_MAX:
            self._append(line, self._lost)
            self._lost = 0

    def _write(self, line: bytes) -> bool:
        """Whether it is in the log: not if that is closed, or its disk full."""
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:
                poller = select.poll()
                poller.register(self._descriptor, select.POLLOUT)
                poller.poll()
            except OSError:
                return False
        return True


class LogHandler(logging.Handler):
    """Gives records to a LineWriter."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits, never raises."""
        try:
            line = self.format(record)
        except Exception as error:
            line = f"{_PREFIX}{record.msg!r}: {in_one_line(error)}"
        self._writer.add(shown(line.rstrip("\n") + "\n"))

    def flush(self) -> None:
        """Wait for the log's reader, but not for long."""
        self._writer.flush(LIMIT)


class _Formatter(logging.Formatter):
    """Errors are told in one line, unless everything is to be told."""

    def __init__(self, with_traceback: bool) -> None:
        super().__init__(f"{_PREFIX}%(message)s")
        self._with_traceback = with_traceback

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info is None or self._with_traceback:
            return super().format(record)
        assert not isinstance(record.exc_info, bool)
        error = record.exc_info[1]
        told = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        return super().format(told) + (f": {in_one_line(error)}" if error is not None else "")


def in_one_line(error: BaseException) -> str:
    """What an error is, and where it came from."""
    what = "".join(traceback.format_exception_only(error)).strip().replace("\n", " ")
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{what} ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else what
    )


def log_to_standard_error(verbose: int) -> None:
    """Set the log up for this process: warnings, and more the more ``verbose`` is (0 to 2).

    What Python itself would print there goes the same way.
    """
    handler = LogHandler(LineWriter(2))
    handler.setFormatter(_Formatter(with_traceback=verbose > 1))
    logging.basicConfig(
        level=max(logging.DEBUG, logging.WARNING - 10 * verbose), handlers=[handler]
    )
    logging.captureWarnings(True)
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_end


def _log_unraisable(raised: "sys.UnraisableHookArgs") -> None:
    _log_error(raised.err_msg or "error ignored", raised.exc_value, raised.exc_traceback)


def _log_thread_end(raised: threading.ExceptHookArgs) -> None:
    _log_error("a thread has ended", raised.exc_value, raised.exc_traceback)


def _log_error(text: str, error: BaseException | None, trace: TracebackType | None) -> None:
    given = (type(error), error, trace) if error is not None else None
    logger.error("%s", text, exc_info=given)


def flush_log() -> None:
    """Wait until the log is written, but not for long."""
    for handler in logging.getLogger().handlers:
        handler.flush()
