"""ecryptfs-cuse status."""

import json
import os
from typing import Any

import click

from ecryptfs_cuse.cli.errors import Failed, unreachable
from ecryptfs_cuse.fuse.patience import read_in_time


@click.command()
@click.option(
    "--mount",
    "mountpoint",
    required=True,
    metavar="MOUNTPOINT",
    help="Where the device is mounted.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def status(mountpoint: str, as_json: bool) -> None:
    """Show the registered daemons, the requests under way and what happened so far."""
    path = os.path.join(mountpoint, "control", "status")
    try:
        text = read_in_time(path).decode()
        content = _parse(text)
    except OSError as error:
        raise unreachable(mountpoint, error) from None
    except ValueError:
        raise Failed(f"no device is mounted at {mountpoint}: {path} is not its status") from None
    if as_json:
        click.echo(text, nl=False)
    else:
        _show(content)


def _parse(text: str) -> dict[str, Any]:
    """Raises ValueError where it is not a device's status."""
    content = json.loads(text)
    if not isinstance(content, dict) or not {"daemons", "contexts", "totals"} <= content.keys():
        raise ValueError("not a status")
    return content


def _show(content: dict[str, Any]) -> None:
    # Only here: it looks at the working directory, which may be in a mount that is gone.
    from rich.console import Console
    from rich.table import Table

    console = Console()
    daemons = Table("user", "user namespace", "unread", "flags", title="daemons")
    for daemon in content["daemons"]:
        daemons.add_row(
            str(daemon["euid"]),
            str(daemon["user_namespace"]),
            str(daemon["queued"]),
            ", ".join(daemon["flags"]),
        )
    console.print(daemons if content["daemons"] else "no daemons")
    unlisted = content["registered"] - len(content["daemons"])
    if unlisted:
        console.print(f"and {unlisted} daemons more")
    contexts = content["contexts"]
    waiting = Table("index", "counter", "user", title="requests under way")
    for context in contexts["in_use"]:
        waiting.add_row(str(context["index"]), str(context["counter"]), str(context["euid"]))
    if contexts["in_use"]:
        console.print(waiting)
    limit = contexts["per_user"]
    each = "" if limit is None else f", {limit} at most for each user"
    console.print(f"message contexts: {contexts['free']} of {contexts['total']} free{each}")
    totals = ", ".join(
        f"{value} {name.replace('_', ' ')}" for name, value in content["totals"].items()
    )
    console.print(f"since the start: {totals}")
