import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from daemon_client.secret import (
    SIZE_MAX,
    Secret,
    SecretError,
    absolute_source,
    check_source,
    read_secret,
)
from tests.client import PATIENCE

PASSPHRASE = "correct horse battery staple"


def everything_in(error: BaseException) -> str:
    """All that an exception carries, also what is not shown of those that came before it."""
    said, seen = [], [error]
    while seen:
        each = seen.pop()
        said.append("".join(traceback.format_exception(each)) + repr(each))
        seen += [before for before in (each.__cause__, each.__context__) if before is not None]
    return "\n".join(said)


def read(source: str) -> bytes:
    return bytes(read_secret(source, "a key").octets)


def refusal(source: str) -> str:
    with pytest.raises(SecretError) as refused:
        read_secret(source, "a key")
    assert PASSPHRASE not in everything_in(refused.value)
    return str(refused.value)


def program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("content", ["pass word\n", "pass word", "pass word\nanother line\n\n"])
def test_a_file_gives_its_first_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    assert read(f"file:{tmp_path}/file") == b"pass word"


def test_any_octets_but_a_line_feed_may_be_in_a_passphrase(tmp_path: Path) -> None:
    octets = bytes(set(range(256)) - {10})
    (tmp_path / "file").write_bytes(octets)
    assert read(f"file:{tmp_path}/file") == octets


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("pass word")
    assert read("file:~/file") == b"pass word"


def test_a_pipe_gives_its_first_line_once() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"pass word\nmore")
    os.close(writing)
    try:
        assert read(f"fd:{reading}") == b"pass word"
        assert "is empty" in refusal(f"fd:{reading}")
    finally:
        os.close(reading)


def test_an_open_file_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("pass word\n")
    with open(tmp_path / "file") as file:
        assert [read(f"fd:{file.fileno()}") for _ in range(2)] == [b"pass word"] * 2


def test_a_program_is_told_what_the_passphrase_is_for(tmp_path: Path) -> None:
    asks = program(tmp_path / "asks", 'echo "$# $1 $2"')
    assert read(f"askpass:{asks}") == b"1 Passphrase for a key: "
    assert read(f"askpass:{asks} 'one word'") == b"2 one word Passphrase for a key:"


def test_a_credential_is_one_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "name").write_text("pass word\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read("credential:name") == b"pass word"
    assert "cannot read" in refusal("credential:none")
    assert "cannot read" in refusal("credential:..")
    assert "no path" in refusal("credential:../name")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert "LoadCredential=name:PATH" in refusal("credential:name")


def test_without_a_terminal_nobody_is_asked_and_standard_input_is_left_alone() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "default", "-c"),
            "from daemon_client.secret import *\n"
            "try: read_secret('prompt', 'a key')\n"
            "except SecretError as error: print(error)",
        ],
        input=PASSPHRASE + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        start_new_session=True,
    )
    assert done.stdout == "there is no terminal to ask for the passphrase on\n"
    assert done.stderr == ""


def test_a_passphrase_has_at_most_4096_octets(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"p" * SIZE_MAX + b"\n" + b"more" * SIZE_MAX)
    assert read(f"file:{file}") == b"p" * SIZE_MAX
    file.write_bytes(b"p" * (SIZE_MAX + 1) + b"\n")
    assert "more than 4096 octets" in refusal(f"file:{file}")
    assert "more than 4096 octets" in refusal("file:/dev/zero")
    asks = program(tmp_path / "asks", "head -c 4097 /dev/zero")
    assert "more than 4096 octets" in refusal(f"askpass:{asks}")


@pytest.mark.parametrize("content", ["", "\n", f"\n{PASSPHRASE}"])
def test_an_empty_passphrase_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    assert refusal(f"file:{tmp_path}/file") == "the passphrase from file: is empty"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("file:/none/of/these", "/none/of/these: No such file or directory"),
        ("file:/", "Is a directory"),
        ("fd:999999999", "descriptor 999999999: Bad file descriptor"),
        ("askpass:/none/of/these", "cannot run /none/of/these"),
        ("askpass:false", "false gave no passphrase: it ended with 1"),
        ("askpass:sh -c 'kill -9 $$'", "it ended with -9"),
        ("askpass:'", "cannot run ': No closing quotation"),
        ("askpass:true", "the passphrase from askpass: is empty"),
    ],
)
def test_a_source_that_has_none_says_why(source: str, why: str) -> None:
    check_source(source)
    assert why in refusal(source)


@pytest.mark.parametrize(
    "source",
    [
        PASSPHRASE,
        f"pass:{PASSPHRASE}",
        f"env:{PASSPHRASE}",
        f"fd:{PASSPHRASE}",
        f"prompt:{PASSPHRASE}",
        f" file:{PASSPHRASE}",
        f"FILE:{PASSPHRASE}",
        "",
        ":",
        "file",
        "file:",
        "fd:",
        "fd:-1",
        "fd:+1",
        "fd:1_0",
        "fd:\N{ARABIC-INDIC DIGIT ONE}",
        "fd:4294967296",
        "fd:" + "9" * 5000,
        "stdin",
    ],
)
def test_what_is_no_source_is_refused_before_it_is_read_and_not_repeated(source: str) -> None:
    with pytest.raises(SecretError) as refused:
        check_source(source)
    assert PASSPHRASE not in everything_in(refused.value)
    assert "fd:" in str(refused.value)
    assert refusal(source) == str(refused.value)


def test_the_path_of_a_file_is_made_absolute_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert absolute_source("file:a/b", tmp_path) == f"file:{tmp_path}/a/b"
    assert absolute_source("file:/a/b", tmp_path) == "file:/a/b"
    assert absolute_source("file:~/b", tmp_path) == "file:/home/ada/b"
    for source in ("prompt", "fd:3", "askpass:program", "credential:name"):
        assert absolute_source(source, tmp_path) == source


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(PASSPHRASE.encode())
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret])):
        assert "horse" not in shown


def test_wiping_leaves_nothing_but_copies() -> None:
    secret = Secret(PASSPHRASE.encode())
    copy, octets = secret.copy(), secret.octets
    secret.wipe()
    assert octets == b""
    assert bytes(copy.octets) == PASSPHRASE.encode()


def test_a_secret_is_a_copy_of_what_it_was_made_from() -> None:
    octets = bytearray(b"pass word")
    secret = Secret(octets)
    octets[:] = bytes(len(octets))
    assert secret.octets == b"pass word"
