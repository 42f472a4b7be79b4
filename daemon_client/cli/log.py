"""The log: one line for each record, on standard error."""

import logging
import os

from rich.console import Console
from rich.text import Text

_STYLES = {logging.DEBUG: "dim", logging.WARNING: "yellow", logging.ERROR: "red"}

# sd-daemon(3): the journal takes a line's priority from its beginning.
_PRIORITIES = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>"}
_ERROR_PRIORITY = "<3>"


class _Terminal(logging.Handler):
    """In colours on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("ecryptfs-keyd: %(message)s"))
        self._console = Console(stderr=True, highlight=False)

    def emit(self, record: logging.LogRecord) -> None:
        style = _STYLES.get(record.levelno, "")
        try:
            # Not wrapped: programs read logs too.
            self._console.print(Text(self.format(record), style), soft_wrap=True)
        except OSError:
            self.handleError(record)


class _Journal(logging.StreamHandler):  # type: ignore[type-arg]  # at run time it takes none
    """With a priority, for systemd's journal, which knows the program's name."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))

    def format(self, record: logging.LogRecord) -> str:
        return _PRIORITIES.get(record.levelno, _ERROR_PRIORITY) + super().format(record)


def log_to_standard_error(verbose: bool) -> None:
    """Set the log up for this process."""
    handler = _Journal() if "JOURNAL_STREAM" in os.environ else _Terminal()
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
