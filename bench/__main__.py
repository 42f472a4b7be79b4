"""Measure what three servers take for an exchange and for a HELO, side by side.

Two are ``ecryptfs-cuse mount``, with either transport; the third is the least that a server can
take (least.c), which says how much of the time is ours to save. Each is a process of its own;
daemon and requester are C (exchange.c), so that what is timed is the server and the kernel. All of
it happens twice: pinned, with server, daemon and requester on one processor, and free.
"""

import contextlib
import json
import os
import platform
import select
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

SERVERS = {
    "channel": "ecryptfs-cuse mount --transport channel",
    "pyfuse3": "ecryptfs-cuse mount --transport pyfuse3",
    "least": "what a server takes at least: C on libfuse, one daemon, no checks",
}
MEASURES = {
    "exchange": "request written, read by the daemon, answered, answer read",
    "helo": "one HELO written to the device",
}
PLACEMENTS = {
    "pinned": "server, daemon and requester on one processor",
    "free": "on any of the processors",
}

_READY_SECONDS = 20.0
_STOP_SECONDS = 10.0
_ROUND_SECONDS = 30.0


class BenchError(Exception):
    """What was to be measured failed."""


@dataclass(frozen=True)
class Extent:
    """How much is measured: rounds per server, and the iterations of each."""

    rounds: int
    warmup: int
    count: int


FULL = Extent(rounds=20, warmup=50, count=300)
QUICK = Extent(rounds=3, warmup=20, count=100)


@dataclass(frozen=True)
class Result:
    """The medians of one measure in one placement, in microseconds."""

    measure: str
    placement: str
    channel_us: float
    pyfuse3_us: float
    least_us: float
    pyfuse3_to_channel: float
    channel_to_least: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Few iterations: says that it works, not how fast.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(quick: bool, as_json: bool) -> None:
    """Measure an exchange and a HELO over both transports, and over the least server.

    Exit codes: 0 measured, whatever the figures; 1 what was to be measured failed.
    """
    extent = QUICK if quick else FULL
    try:
        results = run(extent)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({**_circumstances(extent), "results": [*map(asdict, results)]}))
    else:
        _show(extent, results)


def run(extent: Extent) -> list[Result]:
    """All measures in all placements. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="ecryptfs-bench-") as scratch:
        directory = Path(scratch)
        program = _compile("exchange", directory)
        least = _compile("least", directory, *_libfuse())
        commands = {
            "channel": _mount_command("channel"),
            "pyfuse3": _mount_command("pyfuse3"),
            "least": [str(least)],
        }
        results: list[Result] = []
        for placement in PLACEMENTS:
            with _placed(placement), contextlib.ExitStack() as servers:
                mounts = {
                    server: servers.enter_context(_served(server, command, directory))
                    for server, command in commands.items()
                }
                results += _compare(program, placement, mounts, extent)
        return results


def _compare(
    program: Path, placement: str, mounts: dict[str, Path], extent: Extent
) -> Iterator[Result]:
    """Measure the servers in turns; a first round warms up and is not counted."""
    times: dict[tuple[str, str], list[int]] = {}
    for number in range(extent.rounds + 1):
        for measure in MEASURES:
            for server, mountpoint in mounts.items():
                taken = _time(program, measure, mountpoint, extent)
                if number > 0:
                    times.setdefault((measure, server), []).extend(taken)
    for measure in MEASURES:
        channel, pyfuse3, least = (
            statistics.median(times[measure, server]) / 1000 for server in SERVERS
        )
        yield Result(
            measure,
            placement,
            channel_us=round(channel, 1),
            pyfuse3_us=round(pyfuse3, 1),
            least_us=round(least, 1),
            pyfuse3_to_channel=round(pyfuse3 / channel, 2),
            channel_to_least=round(channel / least, 2),
        )


def _time(program: Path, measure: str, mountpoint: Path, extent: Extent) -> list[int]:
    """One round: what each iteration took, in nanoseconds."""
    command = [str(program), measure, str(mountpoint), str(extent.warmup), str(extent.count)]
    # Not subprocess.run: at its time-out it waits for a process that may not be killable.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate(timeout=_ROUND_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise BenchError(f"{measure} did not end in {_ROUND_SECONDS:g} seconds") from None
    if process.returncode != 0:
        raise BenchError(f"{measure} failed with exit status {process.returncode}")
    times = [int(line) for line in output.split()]
    if len(times) != extent.count:
        raise BenchError(f"{measure}: {len(times)} times instead of {extent.count}")
    return times


def _compile(name: str, directory: Path, *options: str) -> Path:
    program = directory / name
    source = Path(__file__).with_name(f"{name}.c")
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
    try:
        subprocess.run([*command, *options], check=True)
    except FileNotFoundError:
        raise BenchError("cc is missing: install a C compiler (Debian: gcc, libc6-dev)") from None
    except subprocess.CalledProcessError:
        raise BenchError(f"{source.name} did not compile") from None
    return program


def _libfuse() -> list[str]:
    """The compiler's options for libfuse."""
    command = ["pkg-config", "--cflags", "--libs", "fuse3"]
    try:
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise BenchError("libfuse is missing (Debian: pkg-config, libfuse3-dev)") from None
    return shlex.split(output)


def _mount_command(transport: str) -> list[str]:
    command = [sys.executable, "-m", "ecryptfs_cuse.cli.main", "mount"]
    return [*command, "--transport", transport]


@contextlib.contextmanager
def _placed(placement: str) -> Iterator[None]:
    """Processes started meanwhile inherit the placement."""
    before = os.sched_getaffinity(0)
    if placement == "pinned":
        os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _served(name: str, command: list[str], directory: Path) -> Iterator[Path]:
    """A mount that one process serves, and where it is."""
    mountpoint = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory))
    server = subprocess.Popen([*command, str(mountpoint)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout:
        try:
            ready, _, _ = select.select([server.stdout], [], [], _READY_SECONDS)
            line = server.stdout.readline().decode() if ready else ""
            if line != f"ready: {mountpoint}/dev/ecryptfs\n":
                raise BenchError(f"the server ({name}) did not get ready")
            yield mountpoint
        finally:
            server.terminate()
            try:
                status = server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                status = server.wait()
            if status != 0:
                # It may have left its mount behind, and the directory could not be removed.
                subprocess.run(["fusermount3", "-u", "-z", "-q", str(mountpoint)], check=False)
    if status != 0:
        raise BenchError(f"the server ({name}) ended with exit status {status}")


def _circumstances(extent: Extent) -> dict[str, object]:
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)),
        "servers": SERVERS,
        "measures": MEASURES,
        "placements": PLACEMENTS,
        "iterations": extent.rounds * extent.count,
        "rounds": extent.rounds,
    }


def _show(extent: Extent, results: list[Result]) -> None:
    about = _circumstances(extent)
    console = Console(highlight=False)
    console.print(
        f"Linux {about['kernel']}, Python {about['python']}, {about['processors']} processors"
    )
    for name, meaning in (SERVERS | MEASURES | PLACEMENTS).items():
        console.print(f"  {name:<10}{meaning}")
    console.print(
        f"Medians in us of {about['iterations']} iterations "
        f"in {about['rounds']} rounds, in which the servers take turns"
    )
    table = Table("measure", "placement")
    for heading in (
        "channel",
        "pyfuse3",
        "least (C,\nlibfuse)",
        "pyfuse3\n/ channel",
        "channel\n/ least",
    ):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.measure,
            result.placement,
            f"{result.channel_us:.1f}",
            f"{result.pyfuse3_us:.1f}",
            f"{result.least_us:.1f}",
            f"{result.pyfuse3_to_channel:.2f}",
            f"{result.channel_to_least:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main(prog_name="bench")
