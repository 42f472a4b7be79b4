"""read(2) by several threads at once: every second one is refused, which lets the next one in."""

import signal

from tests.client import Pending
from tests.conformance.case import case, cases
from tests.conformance.daemon import BLOCKS, Question, attempt_blocking
from tests.conformance.system import Daemon, System, Value

_LOCK = "pyfuse3-position-lock"


def _start(daemon: Daemon, seconds: float = 0.1) -> tuple[Pending, Value]:
    """Start one more read, and see it block or return."""
    read = daemon.start_read()
    return read, attempt_blocking(read, seconds)


@cases(
    case(
        "of six readers, each second one gets no octets at once",
        [BLOCKS, b"", BLOCKS, b"", BLOCKS, b""],
        pyfuse3=(_LOCK, [BLOCKS] * 6),
    )
)
def test_six(system: System) -> Value:
    with system.daemon() as daemon:
        reads, found = zip(*(_start(daemon, each) for each in (0.1, 0.5) * 3), strict=True)
        daemon.feed(system.requester().create, *reads)
    return [*found]


@cases(
    case(
        "a reader that a signal has ended lets the next one in, and the others block on",
        (b"", BLOCKS, BLOCKS, BLOCKS),
        pyfuse3=("pyfuse3-interrupt", (BLOCKS, BLOCKS, BLOCKS, BLOCKS)),
    )
)
def test_interrupted_among_several(system: System) -> Value:
    with system.daemon() as daemon:
        reads = [_start(daemon)[0] for _ in range(5)]
        daemon.client.call("signal_thread", reads[2].thread, signal.SIGUSR1)
        ended = attempt_blocking(reads[2])
        sixth, blocked = _start(daemon)
        others = [attempt_blocking(reads[number], 0.1) for number in (0, 4)]
        daemon.feed(system.requester().create, *reads, sixth)
    return ended, blocked, *others


@cases(
    case("of two blocked readers, one gets a message, and the other the next one", [[BLOCKS], []])
)
def test_one_message_for_two(system: System) -> Value:
    found, taken = [], []
    with system.daemon() as daemon:
        reads = [daemon.start_read()]
        reads[0].wait_blocked()
        if system.name != "pyfuse3":
            assert daemon.read() == b""
        reads.append(daemon.start_read())
        reads[1].wait_blocked()
        asked = []
        for _ in range(2):
            asked.append(system.requester().create())
            outcomes = [(read, attempt_blocking(read, 0.2)) for read in reads]
            taken += [octets for _, octets in outcomes if octets != BLOCKS]
            reads = [read for read, octets in outcomes if octets == BLOCKS]
            found.append([octets for _, octets in outcomes if octets == BLOCKS])
        for octets in taken:
            daemon.answer(Question.parse(octets))
        assert [each.outcome for each in asked] == ["OK", "OK"]
    return found
