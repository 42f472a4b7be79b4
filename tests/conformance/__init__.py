"""One suite for two devices: the emulator's, and a real kernel's.

A case is written once and says what the kernel does; see case.py for how. ``make test`` runs all of
them against the emulator on both transports, ``make test-kernel`` against a kernel's device.

Rules for whoever writes a case:

* It gets a ``System`` and takes everything from there: clients, daemons, requesters.
* It leaves nothing to the next one; ``System.settle`` sees to most of that.
* No request is raised while any user's daemon has a stale packet to read: one of a request that
  timed out, or was answered, unread. Read it first. Linux 6.1 corrupts its memory otherwise.
* A daemon does not close with a message queued whose requester still waits, if another request
  follows within the time-out. Linux 6.1 lets the first requester's time-out end the second's.
"""
