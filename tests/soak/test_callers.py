"""Some seconds of any system call with any argument; make soak has more of them."""

from tests.soak.running import soak


def test_no_system_call_with_any_argument_harms_anybody() -> None:
    done = soak("--minutes", "0.1", "--round", "3", "--only", "callers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("soak: ok\n")
