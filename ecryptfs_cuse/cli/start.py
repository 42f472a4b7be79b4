"""Where the program starts: before its modules are there, and so with few imports."""

import signal


def main() -> None:
    """Run ``ecryptfs-cuse``.

    Until it knows what to do, there is nothing to clean up, and Ctrl-C ends it as it ends any
    program: Python's own way would be a traceback. See Program.main.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ecryptfs_cuse.cli.main import main as program

    program()
