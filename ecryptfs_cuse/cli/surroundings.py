"""What a server takes from its surroundings, and asks of them: none of it is worth an end."""

import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext

import trio

logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def stop_signals() -> AbstractContextManager[AsyncIterator[int]]:
    """The signals that are to end us, as they arrive during the block.

    Not those that were ignored when we started: whoever started us wants us not to hear them, as
    nohup(1) does, and a shell without job control for what it starts with "&".
    """
    heard = [each for each in _STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    return trio.open_signal_receiver(*heard) if heard else nullcontext(_no_signals())


async def _no_signals() -> AsyncIterator[int]:
    await trio.sleep_forever()
    yield 0  # makes it a generator


def forbid_core_dumps() -> None:
    """Messages with keys in them pass through this process: no crash may write them down."""
    try:
        import ctypes  # needs more than others do: libffi, and memory that it may write and execute

        refused = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0
        why = "prctl refused" if refused else None
    except (ImportError, OSError, AttributeError) as error:
        why = str(error)
    if why is not None:
        logger.warning("a crash may write keys into a core dump: %s", why)
