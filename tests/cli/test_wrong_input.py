"""Each command with wrong input: a sentence and an exit code, never a traceback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import click
import pytest

from ecryptfs_cuse.cli.main import main
from tests.client import PATIENCE
from tests.conftest import let_everyone_in
from tests.mounted import COMMAND, MountedDevice

USER = 1000
SIG = "0123456789abcdef"
HEX = "42"

DONE, FAILED, USAGE, NOT_MOUNTED = 0, 1, 2, 32


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Paths of every kind, by what they are."""
    directory = tmp_path_factory.mktemp("places")
    let_everyone_in(directory)
    (directory / "file").write_bytes(b"\0not hexadecimal")
    (directory / "empty").touch()
    (directory / "directory").mkdir()
    (directory / "closed").mkdir(mode=0o700)
    (directory / "loop").symlink_to("loop")
    binary = os.fsencode(directory) + b"/\xff\n\x1b"
    os.mkdir(binary)
    device = MountedDevice(directory / "mount", "--allow-other", "--mode", "0666")
    try:
        yield {
            **{name: str(directory / name) for name in os.listdir(directory) if name.isalnum()},
            "binary": os.fsdecode(binary),
            "missing": str(directory / "missing"),
            "within": str(directory / "closed" / "within"),
            "long": str(directory / ("x" * 300)),
            "longer": "/x" * 3000,
        }
        device.stop()
    finally:
        device.clean_up()


def run(arguments: list[str], uid: int = 0) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in a child of ours."""
    with ExitStack() as files:
        out, error = (files.enter_context(os.fdopen(os.memfd_create("x"), "rb")) for _ in range(2))
        child = os.fork()
        if child == 0:
            _be_command(arguments, uid, out, error)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, error):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def _be_command(arguments: list[str], uid: int, out: IO[bytes], error: IO[bytes]) -> None:
    code = 99
    try:
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for place, descriptor in enumerate((nowhere, out.fileno(), error.fileno())):
            os.dup2(descriptor, place)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "r" if n == 0 else "w") for n in range(3))  # noqa: SIM115
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        main(arguments, prog_name="ecryptfs-cuse")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    finally:
        os._exit(code)


WRONG: list[tuple[int, int, str]] = [
    # Exit code, uid, command. {places} are paths.
    (USAGE, 0, "nonsense"),
    (USAGE, 0, "--nonsense"),
    (USAGE, 0, "mount"),
    (USAGE, 0, "mount {directory} more"),
    (USAGE, 0, "mount {directory} --nonsense"),
    (USAGE, 0, "mount {directory} --mode 8"),
    (USAGE, 0, "mount {directory} --uid -1"),
    (USAGE, 0, "mount {directory} --gid root"),
    (USAGE, 0, "mount {directory} --message-buf-len x"),
    (USAGE, 0, "mount {directory} --message-wait-timeout inf-"),
    (USAGE, 0, "mount {directory} --transport {binary}"),
    (USAGE, 0, "mount {directory} {binary}"),
    (NOT_MOUNTED, 0, "mount {missing}"),
    (NOT_MOUNTED, 0, "mount {file}"),
    (NOT_MOUNTED, 0, "mount {file}/below"),
    (NOT_MOUNTED, 0, "mount {binary}/missing"),
    (NOT_MOUNTED, 0, "mount {mount}"),
    (NOT_MOUNTED, 0, "mount {directory} -o nonsense"),
    (NOT_MOUNTED, 0, "mount {directory} --bind {missing}/below"),
    (NOT_MOUNTED, USER, "mount {directory}"),
    (NOT_MOUNTED, USER, "mount {within}"),
    (USAGE, 0, "umount"),
    (USAGE, 0, "umount {directory} more"),
    (NOT_MOUNTED, 0, "umount {directory}"),
    (NOT_MOUNTED, 0, "umount {missing}"),
    (NOT_MOUNTED, 0, "umount {file}"),
    (NOT_MOUNTED, 0, "umount {binary}"),
    (NOT_MOUNTED, USER, "umount {within}"),
    (NOT_MOUNTED, USER, "umount {mount}"),
    (USAGE, 0, "status"),
    (USAGE, 0, "status --mount"),
    (USAGE, 0, "status --mount {mount} more"),
    *(
        (FAILED, 0, f"{command} --mount {place}")
        for command in (
            "status",
            "status --json",
            f"request raw {HEX}",
            f"request encrypt --sig {SIG}",
            f"request decrypt --sig {SIG} --encrypted {{file}}",
        )
        for place in (
            "{directory}",
            "{missing}",
            "{file}",
            "{binary}",
            "{loop}",
            "{long}",
            "{longer}",
        )
    ),
    (FAILED, USER, "status --mount {within}"),
    (FAILED, USER, f"request raw --mount {{within}} {HEX}"),
    (USAGE, 0, "request nonsense"),
    (USAGE, 0, "request raw --mount {mount}"),
    (USAGE, 0, "request raw --mount {mount} 4"),
    (USAGE, 0, "request raw --mount {mount} {binary}"),
    (FAILED, 0, f"request raw --mount {{mount}} {HEX}"),  # there is no daemon
    (FAILED, USER, f"request raw --mount {{mount}} {HEX}"),
    (USAGE, 0, f"request raw --mount {{mount}} {HEX * 9000}"),
    (USAGE, 0, "request encrypt --mount {mount}"),
    (USAGE, 0, "request encrypt --mount {mount} --sig 1"),
    (USAGE, 0, "request encrypt --mount {mount} --sig {binary}"),
    (USAGE, 0, f"request encrypt --mount {{mount}} --sig {SIG} --cipher {{binary}}"),
    (USAGE, 0, f"request encrypt --mount {{mount}} --sig {SIG} --key {{binary}}"),
    (USAGE, 0, f"request encrypt --mount {{mount}} --sig {SIG} --key-bytes 65"),
    (USAGE, 0, f"request encrypt --mount {{mount}} --sig {SIG} --key {HEX} --key-bytes 1"),
    (FAILED, 0, f"request encrypt --mount {{mount}} --sig {SIG}"),
    *(
        (USAGE, uid, f"request decrypt --mount {{mount}} --sig {SIG} --encrypted {place}")
        for uid, place in ((0, "{missing}"), (0, "{binary}"), (0, "{loop}"), (USER, "{within}"))
    ),
    (FAILED, 0, f"request decrypt --mount {{mount}} --sig {SIG} --encrypted {{file}}"),
]


@pytest.mark.parametrize(("code", "uid", "command"), WRONG, ids=lambda value: str(value)[:80])
def test_wrong_input_is_a_sentence_and_an_exit_code(
    places: dict[str, str], code: int, uid: int, command: str
) -> None:
    arguments = [word.format_map(places) for word in command.split()]
    found, out, said = run(arguments, uid)
    assert "Traceback" not in said + out
    assert "bug in ecryptfs-cuse" not in said
    assert (found, out) == (code, ""), said
    assert "Error: " in said
    assert said.endswith("\n")


def _commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from _commands(each, *path, name)


@pytest.mark.parametrize("path", list(_commands(main)), ids=lambda path: " ".join(path) or "itself")
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_each_command_has_help(path: tuple[str, ...], option: str) -> None:
    code, out, said = run([*path, option])
    assert (code, said) == (DONE, "")
    assert out.startswith(f"Usage: {' '.join(('ecryptfs-cuse', *path))} ")


PRINTING = ["--help", "--version", "mount --help", "request --help", "status --mount {mount}"]
PRINTING += ["status --json --mount {mount}"]


def run_with(
    command: str, places: dict[str, str], redirection: str
) -> subprocess.CompletedProcess[str]:
    """Run a command from its very start, with its streams redirected by a shell."""
    arguments = [word.format_map(places) for word in command.split()]
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("command", PRINTING)
@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_output_that_cannot_be_written_is_1_and_a_sentence(
    places: dict[str, str], command: str, redirection: str, why: str
) -> None:
    done = run_with(command, places, redirection)
    assert done.stderr == f"Error: cannot write to standard output: {why}\n"
    assert done.returncode == FAILED


@pytest.mark.parametrize("command", PRINTING)
def test_output_that_nobody_reads_is_1_without_a_word(places: dict[str, str], command: str) -> None:
    done = run_with(command, places, "| true; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.returncode in (DONE, FAILED)  # "true" may still have been there


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(true)", ">&- 2>&- <&-"])
@pytest.mark.parametrize(
    ("code", "command"),
    [
        (NOT_MOUNTED, "mount {missing}"),
        (NOT_MOUNTED, "mount {missing} --background"),
        (NOT_MOUNTED, "umount {missing}"),
        (FAILED, "status --mount {missing}"),
        (FAILED, f"request encrypt --mount {{missing}} --sig {SIG}"),
        (USAGE, "nonsense"),
    ],
)
def test_an_error_that_cannot_be_written_leaves_the_exit_code(
    places: dict[str, str], redirection: str, code: int, command: str
) -> None:
    done = run_with(command, places, redirection)
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode == code


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null"])
def test_input_that_cannot_be_read_is_a_sentence(places: dict[str, str], redirection: str) -> None:
    command = f"request decrypt --mount {{mount}} --sig {SIG} --encrypted -"
    done = run_with(command, places, redirection)
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug in ecryptfs-cuse" not in done.stderr
    assert done.returncode in (FAILED, USAGE)


def test_a_fault_of_ours_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr("ecryptfs_cuse.cli.status.read_in_time", fail)
    code, out, said = run(["status", "--mount", "/"])
    assert (code, out) == (FAILED, "")
    assert said.startswith(
        "Error: this is a bug in ecryptfs-cuse: ZeroDivisionError: an accident ("
    )


def test_errors_in_groups_are_told_as_those_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise BaseExceptionGroup(
            "two", [BaseExceptionGroup("one", [PermissionError(13, "No", "x")])]
        )

    monkeypatch.setattr("ecryptfs_cuse.cli.mount.trio.run", fail)
    assert run(["mount", str(tmp_path)]) == (FAILED, "", "Error: x: No\n")
