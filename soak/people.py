"""Users who ask and who answer, well and badly: what anybody's programs might do."""

import errno
import json
import os
import random
import select
import signal
import time
from contextlib import suppress

from ecryptfs_cuse.wire.packet import Packet, PacketType, build_packet, parse_message, parse_packet
from soak.honest import response
from soak.ledger import Count, Ledger
from soak.place import Place, age_seconds, check_ours, marked
from tests.device.traffic import HELO, PACKET_MAX

_OUTCOMES = {
    errno.ENOTCONN: Count.NO_DAEMON,
    errno.ENOMEM: Count.NO_CONTEXT,
    errno.ENOMSG: Count.TIMED_OUT,
}


def requester(place: Place, rng: random.Random, book: Ledger) -> None:
    """Raise requests, a few at a time; each has one outcome, and that which it should."""
    _be_interrupted(rng)
    uid, serial = os.getuid(), 0
    for _ in range(rng.randrange(1, 40)):
        waiting = []
        for _ in range(rng.choice((1, 1, 1, 1, 3, 8))):
            serial += 1
            flags = os.O_RDWR | (os.O_NONBLOCK if rng.random() < 0.2 else 0)
            request = os.open(place.request, flags)
            since = time.monotonic()  # before: who is stopped meanwhile must not find it short
            if _ask(request, marked(uid, serial) + b"." * _length(rng), book):
                waiting.append((request, serial, since))
            else:
                os.close(request)
                time.sleep(rng.uniform(0, 0.05))
        for request, number, since in waiting:
            if rng.random() < 0.1:
                book.add(Count.ABANDONED)
            else:
                _take(place, request, b"soak:%d:%d:" % (uid, number), since, book)
            os.close(request)


def _length(rng: random.Random) -> int:
    return rng.choice((0, 1, rng.randrange(500), 8300))


def _ask(request: int, data: bytes, book: Ledger) -> bool:
    """Write a request; whether it waits now."""
    book.add(Count.BEGUN)
    try:
        os.write(request, data)
    except OSError as error:
        if error.errno not in _OUTCOMES:
            raise
        book.add(_OUTCOMES[error.errno])
        return False
    with suppress(OSError):
        os.write(request, data)
        raise AssertionError("a second request was taken before the first was over")
    return True


def _take(place: Place, request: int, mark: bytes, since: float, book: Ledger) -> None:
    """Read the outcome."""
    try:
        while True:
            try:
                answer = os.read(request, PACKET_MAX)
                break
            except BlockingIOError:
                select.select([request], [], [], place.timeout)
    except OSError as error:
        if error.errno != errno.ENOMSG:
            raise
        book.add(Count.TIMED_OUT)
        waited = time.monotonic() - since
        if waited < place.timeout * 0.9:
            raise AssertionError(f"timed out after {waited:.3f} s") from None
        return
    book.add(Count.ANSWERED)
    if not answer.startswith((mark, b"soak:%d:blind:" % os.getuid())):
        raise AssertionError(f"the answer to {mark!r} is {answer[:40]!r}")
    if again := os.read(request, PACKET_MAX):
        raise AssertionError(f"there is another answer: {again[:40]!r}")


def daemon(place: Place, rng: random.Random, book: Ledger) -> None:
    """Read requests and answer them in all ways; only right answers are taken."""
    _be_interrupted(rng)
    try:
        device = os.open(place.device, os.O_RDWR | (os.O_NONBLOCK if rng.random() < 0.2 else 0))
    except OSError as error:
        if error.errno != errno.EINVAL:  # this user has one
            raise
        return
    book.add(Count.DAEMONS)
    if rng.random() < 0.8:
        os.write(device, HELO)
    end = time.monotonic() + rng.uniform(0.05, 3)
    while time.monotonic() < end:
        kind = rng.random()
        if kind < 0.03:
            _answer_blindly(place, device, rng)
        elif kind < 0.06:
            _write_rubbish(device, rng)
        elif kind < 0.9 and not select.select([device], [], [], 0.05)[0]:
            continue
        packet = os.read(device, rng.choice((PACKET_MAX, PACKET_MAX, PACKET_MAX, 5, 100)))
        if packet:
            _answer(place, device, packet, rng, book)
    if rng.random() < 0.5:
        os.write(device, build_packet(Packet(PacketType.QUIT, 0)))
    os.close(device)


def _answer(place: Place, device: int, octets: bytes, rng: random.Random, book: Ledger) -> None:
    packet = parse_packet(octets)
    if packet.body is None:
        return  # nobody waits for it any more
    uid = os.getuid()
    message = parse_message(packet.body)
    check_ours(message.data, uid)
    book.add(Count.READ)
    if rng.random() < 0.1 or not message.data.startswith(b"soak:"):
        return
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0, 0.1))
    if rng.random() < 0.2:
        # No request of now has a counter so far away.
        _must_be_refused(device, response(packet.counter ^ (1 << 31), message.index, b"x"), book)
    if rng.random() < 0.2:
        _must_be_refused(device, response(packet.counter, message.index + 1, b"x"), book)
    serial = int(message.data.split(b":")[2])
    right = response(packet.counter, message.index, b"soak:%d:%d:" % (uid, serial) + b"." * 400)
    try:
        os.write(device, right)
        book.add(Count.RESPONDED)
    except OSError as error:
        if error.errno != errno.EINVAL or age_seconds(message.data) < place.timeout / 2:
            raise
        book.add(Count.REFUSED)
    if rng.random() < 0.3:
        _must_be_refused(device, right, book)


def _must_be_refused(device: int, packet: bytes, book: Ledger) -> None:
    try:
        os.write(device, packet)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        book.add(Count.REFUSED)
    else:
        raise AssertionError("a wrong answer was taken")


def _answer_blindly(place: Place, device: int, rng: random.Random) -> None:
    """Answer without having read: control/status tells index and counter."""
    with open(place.status, "rb") as status:
        contexts = json.load(status)["contexts"]["in_use"]
    for context in contexts:
        # Other users' answers are refused; ours have to be this user's either way.
        data = b"soak:%d:blind:" % os.getuid()
        if context["euid"] != os.getuid() or rng.random() < 0.5:
            with suppress(OSError):
                os.write(device, response(context["counter"], context["index"], data))
    _skip_read_messages(device)


def _skip_read_messages(device: int) -> None:
    """Read what was answered already, so that no answer to it is expected to be taken."""
    while select.select([device], [], [], 0)[0] and os.read(device, PACKET_MAX):
        pass


def _write_rubbish(device: int, rng: random.Random) -> None:
    rubbish = bytes([rng.choice((*range(99, 105), rng.randrange(256)))])
    rubbish += rng.randbytes(rng.choice((0, 3, 4, 5, 14, 100, 526, 527, 9000, 1 << 17)))
    if rubbish[0] == PacketType.RESPONSE and len(rubbish) >= 14:
        return  # it may be right
    with suppress(OSError):
        os.write(device, rubbish)


def _be_interrupted(rng: random.Random) -> None:
    """Handle the signals that come from outside, and at times an alarm of our own."""
    for number in (signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, lambda _number, _frame: None)
    if rng.random() < 0.5:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.1), rng.uniform(0.001, 0.1))
