"""Many requests at a time, and one that hangs."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

from daemon_client.daemon import DEADLINE
from tests.kernel import hanging
from tests.kernel.keyd import PATIENCE, Keyd
from tests.kernel.keys import ServedKey
from tests.kernel.mount import FILES, EncryptedFolder

AT_ONCE = 30  # the kernel takes 32


def test_a_key_store_that_hangs_fails_by_the_deadline_and_holds_up_nobody_else(
    running_keyd: Keyd, memory: Path, folder: EncryptedFolder, other_pem: ServedKey
) -> None:
    slow = EncryptedFolder(memory / "hanging", replace(other_pem, alias=hanging.ALIAS))
    with slow.mounted(), slow.key.token():
        slow.fill()
    with slow.mounted(), folder.mounted(), folder.key.token():
        with slow.key.token(), ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            opening = pool.submit(slow.open, "small")
            running_keyd.wait_said(hanging.HANGS)
            assert folder.open("small") is None
            assert not opening.done()
            assert opening.result(PATIENCE) == "EIO"
            assert time.monotonic() - began >= DEADLINE
        # The kernel would have waited for 3 seconds, and not have taken an answer afterwards.
        assert f"fails: the key store has not done it within {DEADLINE:g} s" in running_keyd.said()
        assert "too late" not in running_keyd.said()
        # The same key, in a key store that works.
        with other_pem.token():
            slow.wait_served()
            assert slow.content() == FILES


def test_30_files_that_are_created_and_opened_at_a_time_are_all_right(
    running_keyd: Keyd, memory: Path, plain_pem: ServedKey
) -> None:
    folder = EncryptedFolder(memory / "crowd", plain_pem)
    together = Barrier(AT_ONCE)

    def path(number: int) -> Path:
        # In directories of their own: the kernel holds a directory's lock until the answer.
        return folder.upper / str(number) / "file"

    def write(number: int) -> None:
        together.wait(PATIENCE)
        path(number).write_bytes(number.to_bytes(2, "big") * 5000)

    def read(number: int) -> bytes:
        together.wait(PATIENCE)
        return path(number).read_bytes()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        with folder.mounted(), plain_pem.token():
            for number in range(AT_ONCE):
                path(number).parent.mkdir()
            folder.wait_served()
            list(pool.map(write, range(AT_ONCE)))
        with folder.mounted(), plain_pem.token():
            found = list(pool.map(read, range(AT_ONCE)))
    assert found == [number.to_bytes(2, "big") * 5000 for number in range(AT_ONCE)]
