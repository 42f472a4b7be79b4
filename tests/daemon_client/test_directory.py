import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from daemon_client.key import KeyOpenError
from daemon_client.sources.directory import SIGNATURE, KeyDirectory
from daemon_client.sources.reference import KeyReference
from tests.client import PATIENCE
from tests.daemon_client.test_secret import PASSPHRASE, everything_in

FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def directory(tmp_path: Path) -> KeyDirectory:
    return KeyDirectory(tmp_path / "some" / "keys")


def refusal(directory: KeyDirectory) -> str:
    with pytest.raises(KeyOpenError) as refused:
        directory.references()
    assert PASSPHRASE not in everything_in(refused.value)
    return str(refused.value)


def test_a_directory_that_does_not_exist_has_no_keys(directory: KeyDirectory) -> None:
    assert directory.references() == {}
    assert not directory.remove(FIRST)
    assert not directory.path.exists()


def test_what_is_added_is_there_by_its_signature(directory: KeyDirectory) -> None:
    plain = KeyReference("openssl", '/a "quoted" \\ \N{SNOWMAN}\n.pem')
    protected = KeyReference("openssl", "/key.pem", "file:/pin")
    file = directory.add(SECOND, protected)
    directory.add(FIRST, plain)
    assert directory.references() == {FIRST: plain, SECOND: protected}
    assert list(directory.references()) == [FIRST, SECOND]
    assert file == directory.path / f"{SECOND}.toml"
    assert tomllib.loads(file.read_text()) == {
        "module": "openssl",
        "location": "/key.pem",
        "passphrase": "file:/pin",
    }


def test_a_new_directory_is_private(directory: KeyDirectory) -> None:
    directory.add(FIRST, KeyReference("openssl", "/key.pem"))
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in directory.path.iterdir()] == [f"{FIRST}.toml"]


def test_adding_again_replaces_and_removing_removes(directory: KeyDirectory) -> None:
    directory.add(FIRST, KeyReference("openssl", "/old.pem", "prompt"))
    new = KeyReference("openssl", "/new.pem")
    directory.add(FIRST, new)
    assert directory.references() == {FIRST: new}
    assert directory.remove(FIRST)
    assert not directory.remove(FIRST)
    assert directory.references() == {}


def test_files_of_other_kinds_are_left_alone(directory: KeyDirectory) -> None:
    directory.path.mkdir(parents=True)
    for name in ("README", f"{FIRST}.new", f"{FIRST}.toml~", "key.pem"):
        (directory.path / name).write_text("= not TOML")
    assert directory.references() == {}


def test_what_a_file_says_is_relative_to_the_directory(directory: KeyDirectory) -> None:
    directory.path.mkdir(parents=True)
    (directory.path / f"{FIRST}.toml").write_text('location = "a.pem"\npassphrase = "file:pin"')
    base = directory.path
    assert directory.references()[FIRST] == KeyReference(
        "openssl", f"{base}/a.pem", f"file:{base}/pin"
    )


@pytest.mark.parametrize("name", ["key", "0123456789ABCDEF", FIRST + "0", FIRST[1:], f".{FIRST}"])
def test_a_file_whose_name_is_no_signature_is_named(directory: KeyDirectory, name: str) -> None:
    directory.path.mkdir(parents=True)
    (directory.path / f"{name}.toml").write_text('location = "a.pem"')
    assert f"{directory.path}/{name}.toml is not named by a signature" in refusal(directory)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"location", "Expected '='"),
        (b'location = "\xff"', "'utf-8' codec"),
        (b"", "a key needs location ="),
        (b'location = "a\\u0000b"', "free of NULs"),
        (b'location = "a"\nmodule = "none"', "there is no key module 'none'"),
        (b'location = "a"\npassphrase = "%s"' % PASSPHRASE.encode(), "is no source"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(
    directory: KeyDirectory, content: bytes, why: str
) -> None:
    directory.path.mkdir(parents=True)
    file = directory.path / f"{FIRST}.toml"
    file.write_bytes(content)
    said = refusal(directory)
    assert said.startswith(f"{file}: ")
    assert why in said


def test_what_cannot_be_read_written_or_removed_is_explained(directory: KeyDirectory) -> None:
    file = directory.path / f"{FIRST}.toml"
    file.mkdir(parents=True)
    assert f"cannot read {file}: Is a directory" in refusal(directory)
    with pytest.raises(KeyOpenError, match=f"cannot write {file}: Is a directory"):
        directory.add(FIRST, KeyReference("openssl", "/key.pem"))
    with pytest.raises(KeyOpenError, match=f"cannot remove {file}: Is a directory"):
        directory.remove(FIRST)
    below = KeyDirectory(Path(os.devnull))
    assert refusal(below) == "cannot read /dev/null: Not a directory"


def test_a_file_is_utf8_whatever_the_locale_is(directory: KeyDirectory) -> None:
    program = (
        "import sys; from pathlib import Path; "
        "from daemon_client.sources.directory import KeyDirectory; "
        "from daemon_client.sources.reference import KeyReference; "
        f"KeyDirectory(Path(sys.argv[1])).add({FIRST!r}, KeyReference('openssl', '/k\\xfc.pem'))"
    )
    subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", program, str(directory.path)],
        check=True,
        timeout=PATIENCE,
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    )
    assert directory.references()[FIRST].location == "/k\xfc.pem"


def test_a_signature_is_16_lower_case_hexadecimal_digits() -> None:
    assert SIGNATURE.fullmatch(FIRST)
    for text in ("", FIRST[1:], FIRST + "0", FIRST.upper(), FIRST[1:] + "\n", "../../etc/passwd"):
        assert not SIGNATURE.fullmatch(text)
