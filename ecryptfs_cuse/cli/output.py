"""Standard output, where it is closed, full, or cannot be written to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ecryptfs_cuse.cli.errors import Failed


@contextmanager
def on_standard_output() -> Iterator[None]:
    """What the block prints is what the command is for: it fails where nobody can read that."""
    if sys.stdout is None:
        raise Failed("standard output is closed")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # click's: it ends without a word, as after `| head`
        raise
    except OSError as error:
        # Python would try again when it ends, and say so in its own way.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise Failed(f"cannot write to standard output: {error.strerror}") from None
