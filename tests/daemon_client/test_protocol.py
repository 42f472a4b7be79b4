import sys
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_client.key import KeyOperationError
from daemon_client.modules.openssl import PemKey
from daemon_client.protocol import (
    HELO,
    QUIT,
    Answer,
    Drop,
    Key,
    Quit,
    Task,
    perform,
    receive,
    refuse,
)
from ecryptfs_cuse.wire.packet import (
    Message,
    Packet,
    PacketType,
    build_message,
    build_packet,
    parse_message,
    parse_packet,
)
from ecryptfs_cuse.wire.tags import (
    Tag64,
    Tag65,
    Tag66,
    Tag67,
    TagRequest,
    build_request,
    parse_reply,
)
from tests.daemon_client.answers import check_answer, response

SIGNATURE = "13a050d7dceb34a3"
FAILED_64 = b"\x41\xff"
FAILED_66 = b"\x43\xff"

uint32 = st.integers(0, 2**32 - 1)
payloads = st.binary(max_size=67)
requests = st.builds(Tag64, st.just(SIGNATURE), st.binary(max_size=600)) | st.builds(
    Tag66, st.just(SIGNATURE), st.binary(max_size=600)
)
tag_packets = st.binary(max_size=40) | requests.map(build_request)
messages = st.builds(Message, uint32, tag_packets).map(build_message)
bodies = st.none() | st.binary(max_size=300) | messages
packets = st.builds(Packet, st.sampled_from(PacketType) | st.integers(0, 255), uint32, bodies)
damages = st.tuples(st.integers(0, 600), st.binary(max_size=4))


def damaged(octets: bytes, damage: tuple[int, bytes]) -> bytes:
    place, other = damage
    return octets[:place] + other + octets[place + len(other) :]


device_octets = (
    st.binary(max_size=1000)
    | packets.map(build_packet)
    | st.builds(damaged, packets.map(build_packet), damages)
)


def no_result(payload: bytes) -> bytes:
    return None  # type: ignore[return-value]  # what a careless key module does


def text_result(payload: bytes) -> bytes:
    return "text"  # type: ignore[return-value]  # the same


def rejection(payload: bytes) -> bytes:
    raise KeyOperationError("no")


def fault(payload: bytes) -> bytes:
    raise RuntimeError(payload)


FAILURES = (no_result, text_result, rejection, fault)


class FixedKey:
    """A key whose every result is the same."""

    def __init__(self, result: bytes | None) -> None:
        self._result = result

    def encrypt(self, payload: bytes) -> bytes:
        if self._result is None:
            raise KeyOperationError("no")
        return self._result

    decrypt = encrypt


def request_packet(counter: int, index: int, data: bytes) -> bytes:
    body = build_message(Message(index, data))
    return build_packet(Packet(PacketType.REQUEST, counter, body))


def answered(octets: bytes, keys: Mapping[str, Key]) -> Answer | Drop | Quit:
    action = receive(octets)
    if not isinstance(action, Task):
        return action
    key = keys.get(action.request.signature)
    return refuse(action, "no such key") if key is None else perform(action, key)


def asked(request: TagRequest, keys: Mapping[str, Key]) -> Answer:
    answer = answered(request_packet(7, 5, build_request(request)), keys)
    assert isinstance(answer, Answer)
    return answer


def reply_in(answer: Answer) -> Tag65 | Tag67:
    packet = parse_packet(answer.octets)
    assert packet.body is not None
    return parse_reply(parse_message(packet.body).data)


@given(device_octets)
def test_no_octets_raise_and_without_keys_every_answer_is_a_failure_with_octets_that_were_given(
    octets: bytes,
) -> None:
    check_answer(octets, None)


@given(device_octets, st.none() | st.binary(max_size=600))
def test_no_result_of_a_key_makes_an_answer_that_the_device_would_refuse(
    octets: bytes, result: bytes | None
) -> None:
    check_answer(octets, FixedKey(result).encrypt)


@given(device_octets, st.sampled_from(FAILURES))
def test_a_key_that_fails_in_any_way_makes_a_failure_and_nothing_else(
    octets: bytes, failure: Callable[[bytes], bytes]
) -> None:
    check_answer(octets, failure)


@given(uint32, uint32, payloads)
def test_counter_and_index_come_back_as_they_were(counter: int, index: int, payload: bytes) -> None:
    octets = request_packet(counter, index, build_request(Tag66(SIGNATURE, payload)))
    answer = answered(octets, {SIGNATURE: FixedKey(payload)})
    assert isinstance(answer, Answer)
    packet = parse_packet(answer.octets)
    assert (answer.counter, packet.counter) == (counter, counter)
    assert packet.body is not None
    assert parse_message(packet.body).index == index


@given(payload=payloads)
def test_what_tag_66_has_encrypted_tag_64_decrypts(key: PemKey, payload: bytes) -> None:
    keys = {key.signature: key}
    encrypted = reply_in(asked(Tag66(key.signature, payload), keys))
    assert isinstance(encrypted, Tag67)
    assert len(encrypted.content) == 256
    assert reply_in(asked(Tag64(key.signature, encrypted.content), keys)) == Tag65(0, payload)


@pytest.mark.parametrize(
    ("request_", "result", "data"),
    [
        (Tag64(SIGNATURE, b"x"), bytes(67), None),
        (Tag64(SIGNATURE, b"x"), bytes(68), FAILED_64),
        (Tag66(SIGNATURE, b"x"), bytes(512), None),
        (Tag66(SIGNATURE, b"x"), bytes(513), FAILED_66),
    ],
)
def test_results_that_ecryptfs_has_no_room_for_are_failures(
    request_: TagRequest, result: bytes, data: bytes | None
) -> None:
    answer = asked(request_, {SIGNATURE: FixedKey(result)})
    if data is None:
        assert reply_in(answer).content == result
    else:
        assert answer.octets == response(7, 5, data)


def test_a_request_that_is_refused_is_a_failure_of_the_tag_that_asked() -> None:
    assert asked(Tag64(SIGNATURE, b"x"), {}).octets == response(7, 5, FAILED_64)
    answer = asked(Tag66(SIGNATURE, b"x"), {})
    assert answer.octets == response(7, 5, FAILED_66)
    assert answer.failure == "no such key"


class BrokenKey:
    """A key of a module that does not keep to the rules."""

    def encrypt(self, payload: bytes) -> bytes:
        raise RuntimeError(payload.decode())

    decrypt = encrypt


@pytest.mark.parametrize(("kind", "data"), [(Tag64, FAILED_64), (Tag66, FAILED_66)])
def test_whatever_a_key_module_raises_is_a_failure_that_does_not_tell_what_it_said(
    kind: type[TagRequest], data: bytes
) -> None:
    answer = asked(kind(SIGNATURE, b"precious"), {SIGNATURE: BrokenKey()})
    assert answer.octets == response(7, 5, data)
    assert answer.failure == "the key module failed with RuntimeError"


def test_a_bad_ciphertext_is_a_failure(key: PemKey) -> None:
    answer = asked(Tag64(key.signature, bytes(256)), {key.signature: key})
    assert answer.octets == response(7, 5, FAILED_64)


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        (b"", FAILED_64),
        (b"\x40", FAILED_64),
        (b"\x42", FAILED_66),
        (b"\x42\x10short", FAILED_66),
        (b"\x99\x00", FAILED_64),
        (b"\x42\x01a\x00", FAILED_66),
    ],
)
def test_a_request_that_cannot_be_read_is_a_failure(data: bytes, failed: bytes) -> None:
    answer = receive(request_packet(7, 5, data))
    assert isinstance(answer, Answer)
    assert answer.octets == response(7, 5, failed)


def test_a_message_whose_length_is_wrong_is_a_failure() -> None:
    body = (5).to_bytes(4, sys.byteorder) + (99).to_bytes(4, sys.byteorder) + b"\x42"
    answer = receive(build_packet(Packet(PacketType.REQUEST, 7, body)))
    assert isinstance(answer, Answer)
    assert answer.octets == response(7, 5, FAILED_66)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x66",
        bytes.fromhex("6600000007"),
        bytes.fromhex("660000000700"),
        bytes.fromhex("66000000070705000000020000"),
        bytes.fromhex("66000000072e0500"),
        bytes.fromhex("6600000007e0"),
        bytes.fromhex("6400000000"),
        bytes.fromhex("670000000700"),
        bytes.fromhex("0000000000"),
    ],
    ids=lambda octets: octets.hex() or "nothing",
)
def test_what_needs_no_answer_or_says_not_which_is_dropped(octets: bytes) -> None:
    assert isinstance(receive(octets), Drop)


def test_quit_is_understood_with_any_counter() -> None:
    assert receive(bytes.fromhex("6500000000")) == Quit()
    assert receive(bytes.fromhex("6500000009")) == Quit()


def test_a_daemon_says_five_octets_first_and_last() -> None:
    assert (HELO.hex(), QUIT.hex()) == ("6400000000", "6500000000")


@given(payload=st.binary(min_size=4, max_size=60))
def test_no_payload_is_in_a_repr_or_a_reason(key: PemKey, payload: bytes) -> None:
    task = receive(request_packet(7, 5, build_request(Tag66(key.signature, payload))))
    assert isinstance(task, Task)
    answer = perform(task, key)
    plain = Tag64(key.signature, payload)
    refused = perform(Task(1, 1, plain), key)
    for shown in (repr(task), repr(answer), repr(plain), repr(refused)):
        assert repr(payload)[2:-1] not in shown
        assert payload.hex() not in shown
