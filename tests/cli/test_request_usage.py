"""``ecryptfs-cuse request`` given what it cannot use: a sentence, the exit code, and no digit."""

import errno
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ecryptfs_cuse.cli.main import main
from tests.mounted import run_command

# Without what a process does for its standard streams: they are the test's.
COMMANDS = click.Group(commands=main.commands, context_settings=main.context_settings)

SIGNATURE = "0123456789abcdef"
SECRET = "c0ffee"
"""Digits that may be a key's."""

ODD = "odd number of hexadecimal digits: each byte needs two"
NO_DEVICE = "no device is mounted at "


def run(tmp_path: Path, kind: str, *arguments: str, given: bytes | None = None) -> Result:
    """Run the command where no device is: what can be used gets as far as to miss it."""
    signature = [] if kind == "raw" else ["--sig", SIGNATURE]
    return CliRunner().invoke(
        COMMANDS, ["request", kind, "--mount", str(tmp_path), *signature, *arguments], input=given
    )


def refused(result: Result, code: int, sentence: str) -> bool:
    said = result.stderr.splitlines()[-1]
    assert SECRET not in result.output
    assert isinstance(result.exception, SystemExit)
    return result.exit_code == code and said.startswith("Error: ") and sentence in said


@pytest.mark.parametrize(
    "content",
    [
        b"c0ffee",
        b"c0ffee\n",
        b"c0\nff\nee\n",
        b"  C0 FF\tEE \r\n",
        b"c0f\nfee",
        b"\xc0\xff\xee",
        b"c0ffee!",
        b"c0ffee\xa0",
        pytest.param(b"c0\n" * 8000, id="as long as may be"),
    ],
)
@pytest.mark.parametrize("name", ["file", "-"])
def test_an_encrypted_key_is_bytes_or_digits_with_any_white_space(
    tmp_path: Path, content: bytes, name: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    path = "-" if name == "-" else str(tmp_path / name)
    result = run(tmp_path, "decrypt", "--encrypted", path, given=content)
    assert refused(result, 1, NO_DEVICE)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"c0ffee0", ODD),
        (b"c0\nffee\n0\n", ODD),
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (bytes(9000), "a packet length is 0 to 8383, not 9000"),
        (b"c0\n" * 40_000, "the file is too large to be an encrypted key"),
    ],
    ids=["odd", "odd in lines", "nothing", "white space", "more than a request holds", "large"],
)
@pytest.mark.parametrize("name", ["file", "-"])
def test_what_cannot_be_an_encrypted_key_is_wrong_usage(
    tmp_path: Path, content: bytes, sentence: str, name: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    path = "-" if name == "-" else str(tmp_path / name)
    assert refused(run(tmp_path, "decrypt", "--encrypted", path, given=content), 2, sentence)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    result = run(tmp_path, "decrypt", "--encrypted", "/dev/zero")
    assert refused(result, 2, "the file is too large to be an encrypted key")


@pytest.mark.parametrize(
    ("name", "sentence"), [("missing", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_wrong_usage(
    tmp_path: Path, name: str, sentence: str
) -> None:
    path = str(tmp_path / name)
    assert refused(
        run(tmp_path, "decrypt", "--encrypted", path),
        2,
        f"cannot read {os.path.normpath(path) if name != '.' else path}: {sentence}",
    )


def test_standard_input_that_is_closed_or_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    for redirection in ("<&-", "0>/dev/null"):
        done = run_command(
            *("request", "decrypt", "--mount", str(tmp_path), "--sig", SIGNATURE),
            *("--encrypted", "-"),
            prefix=("sh", "-c", f'exec "$@" {redirection}', "sh"),
        )
        why = "cannot read standard input: it is not open for reading"
        said = f"Error: Invalid value for '--encrypted': {why}"
        assert (done.returncode, done.stderr.splitlines()[-1]) == (2, said)


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        ("raw", [SECRET + "0"], ODD),
        ("raw", [SECRET, "0"], ODD),
        ("raw", [SECRET + "x"], "give hexadecimal digits"),
        ("raw", [""], "a request needs at least one byte"),
        ("raw", [], "Missing argument 'HEX...'"),
        ("raw", [4000 * SECRET], "a request has 8375 bytes at most, not 12000"),
        ("encrypt", ["--key", SECRET + "0"], ODD),
        ("encrypt", ["--key", SECRET + "\N{ARABIC-INDIC DIGIT ONE}"], "give hexadecimal digits"),
        ("encrypt", ["--key", SECRET], "an AES key has 16, 24 or 32"),
        ("encrypt", ["--key", SECRET, "--key-bytes", "3"], "not both"),
        ("encrypt", [SECRET], "unexpected argument: give values with options"),
        ("decrypt", ["--encrypted", "/dev/zero", SECRET], "too large"),
        ("encrypt", ["--cipher", "des3_ede", "--key", 4000 * SECRET], "a packet length is"),
    ],
)
def test_wrong_usage_is_a_sentence_that_repeats_no_digits(
    tmp_path: Path, kind: str, arguments: list[str], sentence: str
) -> None:
    assert refused(run(tmp_path, kind, *arguments), 2, sentence)


def test_an_argument_too_many_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("00")
    result = run(tmp_path, "decrypt", "--encrypted", str(tmp_path / "file"), SECRET)
    assert refused(result, 2, "unexpected argument: give values with options")


def test_no_file_key_is_made_for_a_request_that_cannot_be(tmp_path: Path) -> None:
    result = run(tmp_path, "encrypt", "--sig", "short")
    assert refused(result, 2, "a signature is 16 ASCII characters")
    assert "file key" not in result.output


def test_a_user_who_has_too_many_requests_open_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr(os, "open", refuse)
    result = run(tmp_path, "raw", SECRET)
    assert refused(result, 1, "you have too many files open on the device at ")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"3", b"{}"])
def test_a_status_that_is_not_a_devices_is_a_failure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "status").write_bytes(content)
    for arguments in ([], ["--json"]):
        result = CliRunner().invoke(COMMANDS, ["status", "--mount", str(tmp_path), *arguments])
        assert refused(result, 1, f"{NO_DEVICE}{tmp_path}: ")
        assert result.stdout == ""
