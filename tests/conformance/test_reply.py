"""The tag packet in an answer: what becomes of the file operation that waits for it.

Whatever it is, the daemon's write succeeds.
"""

from ecryptfs_cuse.wire.length import build_length
from ecryptfs_cuse.wire.tags import FileKey, build_file_key
from tests.conformance.case import case, cases
from tests.conformance.system import System, Value

_KEY_19 = 19 * "17"


def _tag_67(size: int) -> str:
    """A good tag 67 packet with an encrypted key of this size."""
    return "4300" + build_length(size).hex() + size * "17"


@cases(
    case("an encrypted key of 19 octets", "OK", "430013" + _KEY_19),
    case("status 1", "EIO", "430113" + _KEY_19),
    case("status 255", "EIO", "43ff13" + _KEY_19),
    case("status 2", "EIO", "430213" + _KEY_19),
    case("status 128", "EIO", "438013" + _KEY_19),
    case("status 255 alone, as ecryptfsd", "EIO", "43ff"),
    case("status 1 and another tag", "EIO", "410113" + _KEY_19),
    case("nothing", "EIO", ""),
    case("the tag alone", "EIO", "43"),
    case("tag and status", "EIO", "4300"),
    case("an empty key in three octets", "EIO", "430000"),
    case("an empty key in four octets", "OK", "43000017"),
    case("a key of one octet", "OK", "43000117"),
    case("tag 65", "EIO", "410013" + _KEY_19),
    case("tag 66", "EIO", "420013" + _KEY_19),
    case("tag 0", "EIO", "000013" + _KEY_19),
    case("tag 64", "EIO", "400013" + _KEY_19),
    case("tag 255", "EIO", "ff0013" + _KEY_19),
    case("a length that is one more", "EIO", "430014" + _KEY_19),
    case("a length that is one less: an octet is behind it", "OK", "430012" + _KEY_19),
    case("a length of 0, and octets behind it", "OK", "430000" + _KEY_19),
    case("a length of 191", "EIO", "4300bf" + _KEY_19),
    case("a length of 192", "EIO", "4300c000" + _KEY_19),
    case("a length of 192 and 191 octets", "EIO", "4300c000" + 191 * "17"),
    case("a length of 8383", "EIO", "4300dfff" + _KEY_19),
    case("half of a length", "EIO", "4300c0"),
    case("half of a length, and an octet that is taken for it", "EIO", "4300c017"),
    case("octets behind it", "OK", "430013" + _KEY_19 + "00ff00ff00ff00"),
    case("a length octet of 224", "EINVAL", "4300e013" + _KEY_19),
    case("a length octet of 254", "EINVAL", "4300fe13" + _KEY_19),
    case("a length octet of 224 at the end", "EIO", "4300e0"),
    case("status 1 and a length octet of 224", "EIO", "4301e013" + _KEY_19),
    case("a length octet of 255", "EINVAL", "4300ff00000013" + _KEY_19),
    *(
        case(f"an encrypted key of {size} octets", "OK", _tag_67(size))
        for size in (2, 64, 65, 100, 190, 191, 192, 193, 256, 510, 511, 512)
    ),
    case("a length of 513, and 512 octets", "EIO", "4300c141" + 512 * "17"),
    case("a length of 512, and 511 octets", "EIO", "4300c140" + 511 * "17"),
    case("a length of 511, and 512 octets", "OK", "4300c13f" + 512 * "17"),
)
def test_answer_to_encrypt(system: System, answer: str) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().create()
        question = daemon.question()
        data = bytes.fromhex(answer)
        assert daemon.answer(question, data) == len(question.response(data))
        return asked.outcome


def _payload(key_size: int = 16, cipher_code: int = 7, key_octet: int = 0x17) -> str:
    return build_file_key(FileKey(cipher_code, key_size * bytes((key_octet,)))).hex()


def _tag_65(payload: str) -> str:
    return "4100" + build_length(len(payload) // 2).hex() + payload


_WITHOUT_CHECKSUM = _payload()[:-4]


@cases(
    case("a key of 16 octets", "OK", _tag_65(_payload())),
    case("status 1", "EIO", "410113" + _payload()),
    case("status 2", "EIO", "410213" + _payload()),
    case("status 255", "EIO", "41ff13" + _payload()),
    case("status 255 alone, as ecryptfsd", "EIO", "41ff"),
    case("nothing", "EIO", ""),
    case("the tag alone", "EIO", "41"),
    case("tag and status", "EIO", "4100"),
    case("three octets", "EIO", "410000"),
    case("a payload of 0 octets", "EIO", "41000000"),
    case("a payload of 1 octet", "EIO", "41000107"),
    case("a payload of 2 octets", "EIO", "4100020700"),
    case("a payload of 3 octets: an empty key", "OK", _tag_65(_payload(0))),
    case("tag 67", "EIO", "430013" + _payload()),
    case("tag 64", "EIO", "400013" + _payload()),
    case("tag 66", "EIO", "420013" + _payload()),
    case("tag 0", "EIO", "000013" + _payload()),
    case("a key that is not the file's", "OK", _tag_65(_payload(key_octet=0x18))),
    case("a checksum that is one more", "EIO", _tag_65(_WITHOUT_CHECKSUM + "0171")),
    case("a checksum that is one less", "EIO", _tag_65(_WITHOUT_CHECKSUM + "016f")),
    case("a checksum the other way round", "EIO", _tag_65(_WITHOUT_CHECKSUM + "7001")),
    case("a checksum of 0", "EIO", _tag_65(_WITHOUT_CHECKSUM + "0000")),
    case("a checksum above 16 bits", "OK", _tag_65(_payload(64, key_octet=0xFF))),
    case("no checksum", "EIO", _tag_65(_WITHOUT_CHECKSUM)),
    case("a length that is one more", "EIO", "410014" + _payload()),
    case("a length that is one less", "EIO", "410012" + _payload()),
    case("a length of 0, and octets behind it", "EIO", "410000" + _payload()),
    case("a length of 192", "EIO", "4100c000" + _payload()),
    case("half of a length, and an octet that is taken for it", "EIO", "4100c007"),
    case("octets behind it", "OK", _tag_65(_payload()) + "ff00"),
    case("a length octet of 224", "EIO", "4100e0" + _payload()),
    case("a length octet of 255", "EIO", "4100ff" + _payload()),
    *(
        case(f"cipher code {code}", "EIO", _tag_65(_payload(cipher_code=code)))
        for code in (0, 1, 5, 6, 12, 128, 255)
    ),
    *(
        case(f"cipher code {code}", "OK", _tag_65(_payload(cipher_code=code)))
        for code in (2, 3, 4, 8, 9, 10, 11)
    ),
    *(
        case(f"a key of {size} octets", "OK" if size <= 64 else "EIO", _tag_65(_payload(size)))
        for size in (1, 2, 15, 17, 24, 32, 63, 64, 65, 66, 188, 189, 200, 509)
    ),
)
def test_answer_to_decrypt(system: System, answer: str) -> Value:
    with system.daemon() as daemon:
        asked = system.requester().open(system.created_file(daemon))
        question = daemon.question()
        data = bytes.fromhex(answer)
        assert daemon.answer(question, data) == len(question.response(data))
        return asked.outcome


@cases(case("after a failure the next open asks again", ("EIO", "OK")))
def test_open_again(system: System) -> Value:
    with system.daemon() as daemon:
        file = system.created_file(daemon)
        first = system.requester().open(file)
        daemon.answer(daemon.question(), b"\x41\xff")
        failed = first.outcome
        second = system.requester().open(file)
        daemon.answer(daemon.question())
        return failed, second.outcome
