"""The file control/request: raise a request as the calling user.

A transaction file: open it, write one tag packet, read the answer. Whoever opens it is the
requester, so nobody raises a request in another user's name.

    idle        write: the request is sent          read: no octets
    waiting     write: EBUSY                        read: waits; a signal gives EINTR
    answered    write: EBUSY                        read: the answer, or the error; then idle

An answer may be read in pieces. poll says POLLOUT in idle, POLLIN in answered. Closing the file
abandons the request: for the daemon nothing changes.
"""

import errno
import os
import select
from collections.abc import Callable

from ecryptfs_cuse.core.errors import DeviceError
from ecryptfs_cuse.core.messaging import Identity, Request
from ecryptfs_cuse.fuse.caller import Caller
from ecryptfs_cuse.fuse.node import File, Handle
from ecryptfs_cuse.nodes.device import IdentityRule, identity_of
from ecryptfs_cuse.nodes.exchange import Exchange
from ecryptfs_cuse.nodes.quota import Quota
from ecryptfs_cuse.wire.errors import BuildError

_SPARE_FILES = 1024
"""How many files a user may have open besides one for each context."""


class RequestFile(File):
    """Each open is a requester."""

    def __init__(
        self, exchange: Exchange, rule: IdentityRule = IdentityRule.USER_NAMESPACE
    ) -> None:
        super().__init__(0o666)
        self._exchange = exchange
        self._rule = rule
        self._quota = Quota(exchange.requests_max + _SPARE_FILES)

    def open(self, caller: Caller, flags: int) -> Handle:
        """A requester for the caller. Raises DeviceError EMFILE where the user has too many."""
        close = self._quota.take(caller.uid)
        identity = identity_of(caller, self._rule)
        return RequestHandle(self._exchange, identity, bool(flags & os.O_NONBLOCK), close)

    def truncate(self) -> None:
        """Nothing to do: shells truncate what they redirect to."""


class RequestHandle(Handle):
    """One requester, with one request at a time."""

    def __init__(
        self,
        exchange: Exchange,
        identity: Identity,
        nonblocking: bool,
        close: Callable[[], None],
    ) -> None:
        self._close = close
        self._exchange = exchange
        self._identity = identity
        self._nonblocking = nonblocking
        self._request: Request | None = None
        self._answer = b""

    def read(self, size: int, offset: int) -> bytes | None:
        """The answer; raises what the kernel's requester would get: ENOMSG after a time-out."""
        if self._request is not None:
            if not self._request.is_finished:
                if self._nonblocking:
                    raise DeviceError(errno.EAGAIN)
                return None
            request, self._request = self._request, None
            self._answer = request.take()
        answer, self._answer = self._answer[:size], self._answer[size:]
        return answer

    def write(self, data: bytes, offset: int) -> int:
        """Send a request. Raises ENOTCONN, ENOMEM; EBUSY; EMSGSIZE for more than fits a message."""
        if self._request is not None or self._answer:
            raise DeviceError(errno.EBUSY, "the request before this one is not over")
        try:
            self._request = self._exchange.send(self._identity, data, lambda: self.wake())
        except BuildError as error:
            raise DeviceError(errno.EMSGSIZE, str(error)) from None
        return len(data)

    def poll(self) -> tuple[int, bool]:
        """POLLOUT while a request may be written, POLLIN while an answer may be read."""
        if self._answer or (self._request is not None and self._request.is_finished):
            return select.POLLIN | select.POLLRDNORM, True
        if self._request is not None:
            return 0, True
        return select.POLLOUT | select.POLLWRNORM, True

    def release(self) -> None:
        """The requester has gone away."""
        if self._request is not None:
            self._exchange.abandon(self._request)
        self._request, self._answer = None, b""
        self._close()
