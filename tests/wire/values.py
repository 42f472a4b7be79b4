"""Hypothesis strategies: values that the formats can express, and octets that they may meet."""

from hypothesis import strategies as st

from ecryptfs_cuse.wire.length import TWO_OCTETS_MAX
from ecryptfs_cuse.wire.packet import (
    MESSAGE_DATA_MAX,
    Message,
    Packet,
    build_message,
    build_packet,
)
from ecryptfs_cuse.wire.tags import (
    FileKey,
    Tag64,
    Tag65,
    Tag66,
    Tag67,
    TagReply,
    TagRequest,
    build_file_key,
    build_reply,
    build_request,
)

octet = st.integers(0, 0xFF)
u32 = st.integers(0, 0xFFFF_FFFF)


def content(longest: int) -> st.SearchStrategy[bytes]:
    """Octets around the sizes where the packet length changes its form, and the longest."""
    around = st.sampled_from((0, 1, 2, 190, 191, 192, 193, 447, 448, 512, longest - 1, longest))
    padded = st.builds(lambda size, some: some[:size].ljust(size, b"\xa5"), around, st.binary())
    return st.one_of(st.binary(max_size=300), padded)


packets = st.builds(Packet, octet, u32, st.none() | content(TWO_OCTETS_MAX))
messages = st.builds(Message, u32, content(MESSAGE_DATA_MAX))
file_keys = st.builds(FileKey, octet, st.binary(max_size=100))

signatures = st.text(st.characters(max_codepoint=127), min_size=16, max_size=16)
requests: st.SearchStrategy[TagRequest] = st.one_of(
    st.builds(Tag64, signatures, content(TWO_OCTETS_MAX)),
    st.builds(Tag66, signatures, content(TWO_OCTETS_MAX)),
)
failures: st.SearchStrategy[TagReply] = st.one_of(
    st.builds(Tag65, st.integers(1, 0xFF)), st.builds(Tag67, st.integers(1, 0xFF))
)
successes: st.SearchStrategy[TagReply] = st.one_of(
    st.builds(Tag65, st.just(0), content(TWO_OCTETS_MAX)),
    st.builds(Tag67, st.just(0), content(TWO_OCTETS_MAX)),
)
replies = failures | successes


@st.composite
def damaged(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """Good octets of which some were cut off, changed, or added."""
    octets = bytearray(draw(good))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(octets)))
        match draw(st.sampled_from(("cut", "change", "add"))):
            case "cut":
                del octets[place:]
            case "change" if place < len(octets):
                octets[place] = draw(octet)
            case _:
                octets[place:place] = draw(st.binary(min_size=1, max_size=4))
    return bytes(octets)


any_octets = st.one_of(
    st.binary(max_size=600),
    damaged(packets.map(build_packet)),
    damaged(messages.map(build_message)),
    damaged(requests.map(build_request)),
    damaged(replies.map(build_reply)),
    damaged(file_keys.map(build_file_key)),
)
