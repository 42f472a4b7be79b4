"""The reply to INIT, as it reaches the kernel."""

from struct import pack, pack_into, unpack_from

from ecryptfs_cuse.fuse import abi
from ecryptfs_cuse.fuse.greeting import MAX_BACKGROUND, amend_init

HEADER = abi.OUT_HEADER.size


def test_it_agrees_on_nothing_by_which_one_user_holds_up_another() -> None:
    flags = 0xFFFFFFFF & ~(1 << 30)
    reply = bytearray(HEADER + 64)
    pack_into("=IIIIHHIIHHI", reply, HEADER, 7, 38, 131072, flags, 12, 9, 1 << 20, 1, 256, 3, 0)
    amend_init(memoryview(reply), HEADER)
    async_read, export_support, async_dio = 1 << 0, 1 << 4, 1 << 15  # linux/fuse.h
    assert unpack_from("=IIIIHHIIHHI", reply, HEADER) == (
        *(7, 38, 0),
        (flags | 1 << 30) & ~(async_read | export_support | async_dio),
        *(MAX_BACKGROUND, 9, abi.MAX_WRITE, 1, 256, 3),
        1 << 38 - 32,  # FUSE_NO_EXPORT_SUPPORT
    )


def test_a_reply_without_these_fields_stays_as_it_is() -> None:
    reply = bytearray(pack("=II", 7, 1))
    amend_init(memoryview(reply), 0)
    assert reply == pack("=II", 7, 1)
