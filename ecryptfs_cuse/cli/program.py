"""What is the same for all our commands: their surroundings, and how their failure is told.

A failure is a sentence on standard error and an exit code, whatever it is; see cli/errors.py.
"""

import errno
import fcntl
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from ecryptfs_cuse.cli import streams
from ecryptfs_cuse.cli.log import in_one_line

_FAILED = 1


class Program(click.Group):
    """A command with subcommands, as a process of its own."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit, as click's own does."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        streams.prepare()
        # From here on Ctrl-C is told as other failures are. One that is ignored stays so.
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # A parent that ignores it would keep us from seeing how our children end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        failure: BaseException | None = None
        code: Any = 0
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            failure = error
        sys.exit(_exit_code(code if isinstance(code, int) else 0, failure))


def _exit_code(code: int, failure: BaseException | None) -> int:
    """Have what was written go out, and say what went wrong."""
    unwritten = [streams.write_error(stream) for stream in (sys.stdout, sys.stderr)]
    if failure is not None:
        code = _FAILED if any(unwritten) and isinstance(failure, OSError) else _told(failure)
    if unwritten[0] is not None and unwritten[0].errno != errno.EPIPE:
        streams.complain(f"Error: cannot write to standard output: {unwritten[0].strerror}")
    return code or (_FAILED if any(unwritten) else 0)


def _told(failure: BaseException) -> int:
    """Say what it is; the exit code."""
    known = next(_known(failure), None)
    match known:
        case click.ClickException():
            text = io.StringIO()
            known.show(text)
            streams.complain(text.getvalue().rstrip("\n"))
            return known.exit_code
        case click.Abort():
            streams.complain("Aborted!")
        case OSError():
            streams.complain(f"Error: {_sentence(known)}")
        case MemoryError():
            streams.complain("Error: there is not enough memory")
        case _:
            streams.complain(f"Error: this is a bug in ecryptfs-cuse: {in_one_line(failure)}")
    return _FAILED


def _known(error: BaseException) -> Iterator[BaseException]:
    """What can be told in a sentence, out of the groups that it may be in."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _known(each)
    elif isinstance(error, (click.ClickException, click.Abort, OSError, MemoryError)):
        yield error


def _sentence(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {why}"
    if error.errno == errno.ENOENT and _is_directory_gone():
        return "the working directory is gone: give paths that begin with /"
    if error.errno == errno.EBADF and _is_input_closed():
        return "standard input is closed"
    return why


def _is_directory_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_input_closed() -> bool:
    return fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
