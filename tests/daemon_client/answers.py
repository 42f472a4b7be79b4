"""What holds for every answer, whatever the device says and whatever a key does.

    octets are no request, or say not which      no answer
    the request cannot be read, there is no key  the failure packet of its tag
    the key raises, or its result has no room    the same
    otherwise                                    what the key gave, and nothing else

An answer is a RESPONSE with the request's counter and index, of 531 octets at most. For the tests
of daemon_client/protocol.py and for fuzz/. Requests and answers are read here by hand, since what
reads them in the daemon is what is tested.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from daemon_client.protocol import Answer, Drop, Key, Quit, Task, perform, receive, refuse

ANSWER_MAX = 531
"""The most octets that the device accepts: 5, a length of 2, 8, and a tag 67 packet with 512."""

RESULT_MAX = {0x40: 67, 0x42: 512}
"""What eCryptfs has room for, by the tag that asks: a payload, an encrypted key."""

_QUIT, _REQUEST, _RESPONSE = 0x65, 0x66, 0x67
_UNKNOWN_TAG = 0x40
"""Which tag is answered where none of the two asked."""


@dataclass
class WatchedKey:
    """A key of any behaviour, which notes what it is asked.

    act: what encrypts and decrypts; may raise. asked: each call's octets. result: the last one's,
    or None where it raised.
    """

    act: Callable[[bytes], bytes]
    asked: list[bytes] = field(default_factory=list)
    result: bytes | None = None

    def encrypt(self, payload: bytes) -> bytes:
        """What a key does."""
        self.asked.append(payload)
        self.result = self.act(payload)
        return self.result

    decrypt = encrypt


@dataclass(frozen=True)
class Asked:
    """What a packet has to say to be answered; body: the tag packet."""

    counter: int
    index: int
    body: bytes

    @property
    def tag(self) -> int:
        """That of the answer is one more."""
        return 0x42 if self.body[:1] == b"\x42" else _UNKNOWN_TAG


def read_request(octets: bytes) -> Asked | None:
    """The request that has to be answered, if the octets are one."""
    body = _body(octets)
    if body is None or octets[0] != _REQUEST or len(body) < 8:
        return None
    index = int.from_bytes(body[:4], sys.byteorder)
    return Asked(int.from_bytes(octets[1:5], "big"), index, body[8:])


def answer(octets: bytes, key: Key | None) -> Answer | Drop | Quit:
    """What the daemon does; every signature is the key's, if there is one."""
    action = receive(octets)
    if not isinstance(action, Task):
        return action
    return refuse(action, "no such key") if key is None else perform(action, key)


def check_answer(octets: bytes, act: Callable[[bytes], bytes] | None) -> None:
    """Check the answer to what the device says. act: what the key does; None: there is no key."""
    key = None if act is None else WatchedKey(act)
    action = answer(octets, key)
    request = read_request(octets)
    if request is None:
        assert isinstance(action, Quit if _is_quit(octets) else Drop)
        assert not key or not key.asked
        return
    assert isinstance(action, Answer)
    assert len(action.octets) <= ANSWER_MAX
    assert action.counter == request.counter
    data = _expected(request, key)
    assert action.octets == response(request.counter, request.index, data)
    assert (action.failure is not None) == (data[1:] == b"\xff")


def response(counter: int, index: int, data: bytes) -> bytes:
    """A RESPONSE, by hand."""
    native = index.to_bytes(4, sys.byteorder) + len(data).to_bytes(4, sys.byteorder)
    body = native + data
    return bytes((_RESPONSE,)) + counter.to_bytes(4, "big") + _length(len(body)) + body


def _expected(request: Asked, key: WatchedKey | None) -> bytes:
    """The tag packet that answers a request, by what became of the key."""
    failure = bytes((request.tag + 1, 0xFF))
    if key is None or not key.asked:
        return failure
    assert len(key.asked) == 1
    # The key saw nothing but what its request had at its end; what follows the packet is ignored.
    assert key.asked[0] in request.body
    assert request.body[0] == request.tag
    result = key.result
    if not isinstance(result, bytes) or len(result) > RESULT_MAX[request.tag]:
        return failure
    # The kernel refuses a tag packet of less than four octets.
    return (bytes((request.tag + 1, 0)) + _length(len(result)) + result).ljust(4, b"\0")


def _is_quit(octets: bytes) -> bool:
    return octets[:1] == bytes((_QUIT,)) and (len(octets) == 5 or _body(octets) is not None)


def _body(octets: bytes) -> bytes | None:
    """What the packet length covers; None where there is no body, or the length is wrong."""
    if len(octets) < 6:
        return None
    length, end = octets[5], 6
    if length >= 192:
        if length >= 224 or len(octets) < 7:
            return None
        length, end = (length - 192) * 256 + octets[6] + 192, 7
    return octets[end:] if len(octets) - end == length else None


def _length(length: int) -> bytes:
    if length < 192:
        return bytes((length,))
    return bytes((192 + (length - 192) // 256, (length - 192) % 256))
