"""The manual pages: complete, and as man wants them."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from daemon_client.cli.errors import ConfigFailed, DeviceFailed, Failed
from daemon_client.sources import config
from tests.client import PATIENCE
from tools.man import COMMANDS, manual_page

DATE = "2001-02-03"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, written as ``make man`` does."""
    directory = tmp_path_factory.mktemp("man") / "made"
    subprocess.run(
        [sys.executable, "-m", "tools.man", str(directory)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "SOURCE_DATE_EPOCH": "981173106"},
        timeout=PATIENCE,
        check=True,
    )
    return directory


def output(*command: str | Path, given: str | None = None) -> str:
    """What a program says of a page, on standard output and standard error."""
    done = subprocess.run(
        command,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout


def shown(page: str) -> str:
    """A page as it is read, without bold, with any space as one."""
    text = output("groff", "-man", "-Tascii", "-P-cbuo", given=page)
    return re.sub(r"\s+", " ", text)


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, each with what is typed to call it."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, *path, name)


def test_there_is_a_page_for_each_command(pages: Path) -> None:
    assert sorted(path.name for path in pages.iterdir()) == ["ecryptfs-cuse.1", "ecryptfs-keyd.1"]
    for path in pages.iterdir():
        assert f" {DATE} " in path.read_text().split("\n")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_every_subcommand_and_every_option(pages: Path, name: str) -> None:
    text = shown((pages / f"{name}.1").read_text())
    found = list(commands(COMMANDS[name], name))
    assert len(found) > 5
    for path, command in found:
        assert f" {path} [OPTIONS]" in text
        for option in command.params:
            for spelled in (*option.opts, *option.secondary_opts):
                assert isinstance(option, click.Argument) or spelled in text


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "command",
    [("groff", "-ww", "-man", "-Tutf8", "-z"), ("mandoc", "-T", "lint", "-W", "warning")],
    ids=lambda command: str(command[0]),
)
def test_no_program_warns_of_a_page(pages: Path, name: str, command: tuple[str, ...]) -> None:
    page = (pages / f"{name}.1").read_text()
    assert output(*command, given=page) == ""
    assert output(*command, given=page.replace(".TP", ".TP\n.TPP", 1)) != ""


def test_the_daemons_page_has_its_exit_codes_and_an_example_of_its_configuration(
    pages: Path,
) -> None:
    page = (pages / "ecryptfs-keyd.1").read_text()
    status = shown(page).partition("EXIT STATUS")[2].partition("CONFIGURATION")[0]
    codes = {0, click.UsageError.exit_code}
    codes |= {each.exit_code for each in (Failed, DeviceFailed, ConfigFailed)}
    assert {int(code) for code in re.findall(r" (\d+) ", status)} == codes
    literal = output("groff", "-man", "-Tascii", "-P-cbuo", "-rLL=200n", given=page)
    example = literal.partition("CONFIGURATION")[2].partition("\n\n")[2].partition("EXAMPLES")[0]
    assert tomllib.loads(example) == tomllib.loads((config.__doc__ or "").partition("\n")[2])


def test_what_means_something_to_roff_is_shown_as_it_was_written() -> None:
    strange = r"""'quoted' `text` .dot -dash \backslash ~tilde ^caret \fBnot bold\fR"""
    command = click.Command("x", help=f"A name.\n\n.first\n\n'second\n\n    {strange}\n\n{strange}")
    text = shown(manual_page("x", click.Group(commands=[command], help="A group."), DATE))
    assert text.count(strange) == 2
    assert " .first 'second " in text
