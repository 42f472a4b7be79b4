"""Let strangers loose on a device: ``python -m soak --minutes 10``, as root."""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from soak.check import Checks, abort
from soak.children import Children
from soak.ledger import OUTCOMES, Count
from soak.place import Place
from soak.rounds import CROWD, OTHERS, Outcome, Plan, Rounds
from soak.vicious import DEEDS
from tests.isolation import isolate
from tests.mounted import MountedDevice

_WHERE = Path("/mnt")  # ours alone: we have a mount namespace of our own
_CONTEXTS_PER_USER = 4
_TIMEOUT_SECONDS = 3.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=float, default=1.0, show_default=True, help="For how long.")
@click.option("--seed", help="Repeat a run, as far as that can be repeated.  [default: a new one]")
@click.option(
    "--users",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many ask and answer.",
)
@click.option(
    "--round",
    "length",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long everybody is let loose at a time.",
)
@click.option(
    "--only",
    type=click.Choice(["people", "callers", "crowd"]),
    help="Only those who ask and answer, who make any system call, or who write 1 MiB.",
)
@click.option(
    "--deed",
    type=click.Choice(sorted({deed.__name__ for deed in DEEDS})),
    multiple=True,
    help="Only this vicious deed, or these.  [default: all]",
)
def main(
    minutes: float,
    seed: str | None,
    users: int,
    length: float,
    only: str | None,
    deed: tuple[str, ...],
) -> None:
    """Let many users loose on a device, and look whether they harm anybody but themselves.

    They ask, answer rightly and wrongly, get signals, die, and make any system call with any
    argument; two honest ones beside them must not notice. When everybody has gone, nothing may be
    left of them. Needs root. The exit code is 1 where something was wrong.

    \b
    Example: what may be found in a night
        python -m soak --minutes 480
    """
    if os.geteuid() != 0:
        raise click.UsageError("it acts as many users: run it as root")
    seed = seed or secrets.token_hex(4)
    click.echo(f"seed {seed}")
    isolate()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "soak", str(_WHERE)], check=True)
    scratch = _WHERE / "scratch"
    scratch.mkdir()
    scratch.chmod(0o1777)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until whom we fork has a handler for it
    device = _mounted(users + OTHERS)
    children = Children()
    place = Place(device.mountpoint, scratch, _TIMEOUT_SECONDS)
    checks = Checks(device, place, children)
    plan = Plan(
        users,
        tuple(known for known in DEEDS if not deed or known.__name__ in deed),
        people=only in (None, "people"),
        callers=only in (None, "callers"),
        crowd=only in (None, "crowd"),
    )
    try:
        outcomes = _run(
            Rounds(plan, place, children, checks, random.Random(seed)),
            children,
            checks,
            minutes * 60,
            length,
        )
        if not children.faults:
            checks.end()
    finally:
        if children.is_stuck:
            abort(device.mountpoint)
        children.kill()
        device.clean_up()
    click.echo(_summary(children, outcomes))
    for fault in children.faults:
        click.echo(f"WRONG: {fault}")
    if children.faults:
        click.echo(f"soak: failed: seed {seed}")
        sys.exit(1)
    click.echo("soak: ok")


def _mounted(users: int) -> MountedDevice:
    """A device on which nobody can take the contexts of others."""
    try:
        return MountedDevice(
            _WHERE / "device",
            *("--allow-other", "--mode", "0666"),
            *("--message-buf-len", str(users * _CONTEXTS_PER_USER)),
            *("--contexts-per-user", str(_CONTEXTS_PER_USER)),
            *("--message-wait-timeout", str(_TIMEOUT_SECONDS)),
        )
    except AssertionError as error:
        raise click.ClickException(str(error)) from None


def _run(
    rounds: Rounds, children: Children, checks: Checks, seconds: float, length: float
) -> list[Outcome]:
    started = time.monotonic()
    outcomes: list[Outcome] = []
    while not children.faults and (len(outcomes) < 2 or time.monotonic() - started < seconds):
        outcome = rounds.round(min(length, seconds))
        outcomes.append(outcome)
        if not children.faults:
            checks.grown(outcomes[0].size, outcome.size)
        click.echo(f"{time.monotonic() - started:6.0f} s: {_figures(children, outcome)}")
    return outcomes


def _figures(children: Children, outcome: Outcome) -> str:
    counted = children.counted
    return (
        f"{counted[Count.BEGUN]} requests, {counted[Count.ANSWERED]} answered;"
        f" {counted[Count.DAEMONS]} daemons; {counted[Count.DEEDS]} vicious deeds;"
        f" {counted[Count.CALLS]} calls of"
        f" {counted[Count.PROCESSES]} processes; an honest exchange took {outcome.worst_ms:.0f} ms"
        f" at most, {outcome.crowd_ms:.0f} beside {CROWD} writers of 1 MiB;"
        f" the server takes {outcome.size.memory >> 10} KiB"
    )


def _summary(children: Children, outcomes: list[Outcome]) -> str:
    counted = children.counted
    fates = ", ".join(f"{counted[fate]} {fate.name.lower().replace('_', ' ')}" for fate in OUTCOMES)
    memory = [outcome.size.memory >> 10 for outcome in outcomes]
    return "\n".join(
        (
            f"requests: {counted[Count.BEGUN]}: {fates}",
            f"answers: {counted[Count.RESPONDED]} taken, {counted[Count.REFUSED]} refused",
            f"longest honest exchange: {max(outcome.worst_ms for outcome in outcomes):.1f} ms;"
            f" beside {CROWD} writers: {max(outcome.crowd_ms for outcome in outcomes):.1f} ms",
            f"the server's memory: {memory[0]} KiB after the first round, {memory[-1]} at the end",
        )
    )


if __name__ == "__main__":
    main()
