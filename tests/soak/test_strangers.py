"""Half a minute of strangers on one device; make soak has them there for as long as wanted."""

from tests.soak.running import soak


def test_whatever_strangers_do_harms_nobody_but_themselves() -> None:
    done = soak("--minutes", "0.4", "--round", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("soak: ok\n")
