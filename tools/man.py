"""Write a manual page for each of our commands, from what the commands say of themselves.

    python -m tools.man DIRECTORY

A page has the subcommands, too. Of the command's own help text, paragraphs that begin with
"Example" go to EXAMPLES, and "Exit codes: 0 done, 1 failed" goes to EXIT STATUS. The date is the
day's, or SOURCE_DATE_EPOCH's (reproducible-builds.org). Source: man(7), man-pages(7).
"""

import datetime
import inspect
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from daemon_client.cli.main import main as ecryptfs_keyd
from daemon_client.sources import config
from ecryptfs_cuse import __version__
from ecryptfs_cuse.cli.main import main as ecryptfs_cuse

COMMANDS = {"ecryptfs-cuse": ecryptfs_cuse, "ecryptfs-keyd": ecryptfs_keyd}
CONFIGURATIONS = {"ecryptfs-keyd": config.__doc__}
OTHERS = ("ecryptfsd(8)", "ecryptfs-manager(8)", "mount.ecryptfs(8)")

_INDENT = "    "
# Characters that roff would take for something else, or print as something else (groff_char(7)).
_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}


def manual_page(name: str, command: click.Command, date: str) -> str:
    """The page of a command, as man(7) has it."""
    context = _context(name, command, None)
    subcommands = list(_subcommands(context))
    paragraphs = _paragraphs(command)
    exit_codes = [each for each in paragraphs if each.startswith("Exit codes: ")]
    examples = [each for each in paragraphs if each.startswith("Example")]
    description = [each for each in paragraphs if each not in (*exit_codes, *examples)]
    summary = description[0].partition(". ")[0].rstrip(".")
    others = sorted((*(f"{each}(1)" for each in COMMANDS if each != name), *OTHERS))
    lines = [
        f'.TH {name.upper()} 1 {date} "ecryptfs-cuse {__version__}" "User Commands"',
        # Neither hyphens nor spaces that are not in the text: much of it is to be copied.
        *(".nh", ".ad l"),
        *(".SH NAME", f"{_escaped(name)} \\- {_escaped(summary)}"),
        *(".SH SYNOPSIS", *_synopsis([context, *subcommands])),
        *(".SH DESCRIPTION", *_text(description)),
        *(".SH OPTIONS", *_options(context)),
        ".SH COMMANDS",
    ]
    for each in subcommands:
        lines += [f".SS {_escaped(_path(each))}", *_text(_paragraphs(each.command))]
        lines += _options(each)
    lines += [".SH EXIT STATUS", *_exit_status(exit_codes)]
    if CONFIGURATIONS.get(name):
        head, *rest = (CONFIGURATIONS[name] or "").strip().split("\n\n")
        body = "\n".join(_INDENT + line if line else "" for line in "\n\n".join(rest).split("\n"))
        lines += [".SH CONFIGURATION", *_text([head, body])]
    if examples:
        lines += [".SH EXAMPLES", *_text(examples)]
    lines += [".SH SEE ALSO", _escaped(", ".join(others))]
    return "\n".join(lines) + "\n"


def _context(name: str, command: click.Command, parent: click.Context | None) -> click.Context:
    return click.Context(command, parent, info_name=name, **command.context_settings)


def _subcommands(context: click.Context) -> Iterator[click.Context]:
    """All there are below a command, each before its own."""
    if isinstance(context.command, click.Group):
        for name, command in sorted(context.command.commands.items()):
            found = _context(name, command, context)
            yield found
            yield from _subcommands(found)


def _path(context: click.Context) -> str:
    """A subcommand's name without the program's."""
    return context.command_path.partition(" ")[2]


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return [each for each in text.split("\n\n") if each.strip()]


def _synopsis(contexts: list[click.Context]) -> Iterator[str]:
    for number, context in enumerate(contexts):
        if number:
            yield ".br"
        usage = " ".join(context.command.collect_usage_pieces(context))
        yield f".B {_escaped(context.command_path)}"
        yield _escaped(usage)


def _text(paragraphs: list[str]) -> Iterator[str]:
    """Paragraphs; indented lines stay as they are."""
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        is_literal = False
        for line in paragraph.split("\n"):
            if line.startswith(_INDENT) != is_literal and line:
                is_literal = not is_literal
                yield from (".RS 4", ".nf") if is_literal else (".fi", ".RE")
            yield _escaped(line.removeprefix(_INDENT)) if line else ".sp"
        if is_literal:
            yield from (".fi", ".RE")


def _options(context: click.Context) -> Iterator[str]:
    for option in context.command.get_params(context):
        record = option.get_help_record(context)
        # Arguments are in the synopsis, and --help is the same for all.
        if record is None or isinstance(option, click.Argument):
            continue
        if context.parent is not None and "--help" in option.opts:
            continue
        names, text = record
        names = re.sub(r"(?<![\w-])(\\-[\w\\-]+)", r"\\fB\1\\fR", _escaped(names))
        yield from (".TP", names, _escaped(" ".join(text.split())) or r"\&")


def _exit_status(paragraphs: list[str]) -> Iterator[str]:
    for code, meaning in re.findall(r"(\d+) ([^,.]+)", " ".join(paragraphs)):
        yield from (".TP", code, _escaped(" ".join(meaning.split())))


def _escaped(text: str) -> str:
    escaped = re.sub(r"[\\'`^~-]", lambda found: _ESCAPES[found[0]], text)
    return r"\&" + escaped if escaped.startswith(".") else escaped


def main() -> None:
    """Write them all."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = datetime.datetime.fromtimestamp(moment, datetime.UTC).date().isoformat()
    for name, command in COMMANDS.items():
        (directory / f"{name}.1").write_text(manual_page(name, command, date))


if __name__ == "__main__":
    main()
