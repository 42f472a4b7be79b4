"""Mount points of any name, in any locale."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.client import PATIENCE
from tests.mounted import COMMAND

NAMES = [b"a b\tc\nd\\e\\040#", b"gone (deleted)", "grün".encode(), b"gr\xfcn\xff", b"-o"]


def locale_of(name: str, directory: Path) -> dict[str, str]:
    """The environment of a locale, without the UTF-8 mode of Python."""
    environment = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": name}
    if "ISO" in name:
        compiled = subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(directory / name)],
            capture_output=True,
            check=False,
        )
        if not (directory / name).exists():
            pytest.skip(f"localedef has no sources of it: {compiled.stderr.decode()}")
        environment["LOCPATH"] = str(directory)
    return {**os.environ, **environment}


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_any_name_of_a_mount_point_will_do(tmp_path: Path, locale: str) -> None:
    environment = locale_of(locale, tmp_path)
    servers = []
    for name in NAMES:
        where = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(where)
        process = subprocess.Popen(
            [*COMMAND, "mount", where],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        servers.append((where, process))
    for where, process in servers:
        assert process.stdout is not None
        assert process.stdout.read(len(b"ready: ") + len(where)) == b"ready: " + where
    for number, (where, process) in enumerate(servers):
        if number % 2:
            process.terminate()
        else:
            done = subprocess.run(
                [*COMMAND, "umount", where], env=environment, capture_output=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, b"")
        _, said = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (0, b"")
        assert os.listdir(where) == []


@pytest.mark.parametrize(
    "arguments",
    [("mount",), ("umount",), ("status", "--mount"), ("request", "raw", "00", "--mount")],
)
def test_a_name_that_cannot_be_said_is_in_a_sentence_all_the_same(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments, os.fsencode(tmp_path) + b"/gr\xfcn"],
        env=locale_of("C", tmp_path),
        capture_output=True,
        check=False,
    )
    assert done.returncode in (1, 32)
    assert done.stderr.startswith(b"Error: ")
    assert done.stderr.count(b"\n") == 1
