"""What a command is started in: streams, signals, directories, limits. None of it ends a server."""

import itertools
import logging
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ecryptfs_cuse.cli import background, surroundings
from ecryptfs_cuse.cli.errors import MountFailed
from tests.cli.processes import ending, unmount, wait_mounted
from tests.client import PATIENCE
from tests.mounted import COMMAND, MountedDevice, is_mountpoint, run_command

CLOSED = [
    streams
    for count in range(4)
    for streams in itertools.combinations(("<&-", ">&-", "2>&-"), count)
]


def without(streams: tuple[str, ...], *arguments: str) -> list[str]:
    """The command without these standard streams."""
    return ["sh", "-c", f'exec "$@" {" ".join(streams)}', "sh", *COMMAND, *arguments]


@pytest.mark.parametrize("streams", CLOSED, ids=lambda streams: " ".join(streams) or "none")
def test_closed_standard_streams_are_no_matter_to_a_server(
    tmp_path: Path, streams: tuple[str, ...]
) -> None:
    process = subprocess.Popen(
        without(streams, "mount", "-v", str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with ending(process, tmp_path):
        wait_mounted(process, tmp_path)
        for descriptor in (0, 1, 2):  # nothing of the server's own is there
            target = os.readlink(f"/proc/{process.pid}/fd/{descriptor}")
            assert target.startswith("pipe:") or target == os.devnull
        process.terminate()
        out, said = process.communicate(timeout=PATIENCE)
    line = f"ready: {tmp_path}/dev/ecryptfs\n".encode()
    assert out == (b"" if ">&-" in streams else line)
    assert said == (b"" if "2>&-" in streams else b"ecryptfs-cuse: stopping: SIGTERM\n")


@pytest.mark.parametrize("streams", CLOSED[1:], ids=" ".join)
def test_closed_standard_streams_are_no_matter_in_the_background(
    tmp_path: Path, streams: tuple[str, ...]
) -> None:
    try:
        done = subprocess.run(
            without(streams, "mount", "--background", str(tmp_path)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        line = f"ready: {tmp_path}/dev/ecryptfs\n".encode()
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == (b"" if ">&-" in streams else line)
        assert (tmp_path / "control" / "status").read_text()
    finally:
        unmount(tmp_path)


def ignored_signals(pid: int) -> set[signal.Signals]:
    """Which of those that stop a server a process ignores (proc(5), SigIgn)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            bits = int(line.split()[1], 16)
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return {number for number in stopping if bits >> (number - 1) & 1}


@pytest.mark.parametrize(
    "ignored", [("HUP",), ("INT",), ("INT", "HUP"), ("INT", "TERM", "HUP")], ids="+".join
)
def test_signals_that_were_ignored_stay_ignored(tmp_path: Path, ignored: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        ["env", f"--ignore-signal={','.join(ignored)}", *COMMAND, "mount", str(tmp_path)],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"ready: ")
        numbers = {signal.Signals[f"SIG{name}"] for name in ignored}
        assert ignored_signals(process.pid) == numbers
        for number in numbers:
            process.send_signal(number)
        assert (tmp_path / "control" / "status").read_text()
        if signal.SIGTERM in numbers:
            subprocess.run(["fusermount3", "-u", str(tmp_path)], check=True)
        else:
            process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()
        unmount(tmp_path)


@pytest.mark.parametrize("more", [(), ("--background",)], ids=["foreground", "background"])
def test_a_parent_that_ignores_the_end_of_its_children_hides_no_failure(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    done = run_command(
        "mount", str(tmp_path), "-o", "nonsense", *more, prefix=("env", "--ignore-signal=CHLD")
    )
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr.startswith("Error: fusermount3 failed: ")


IN_A_DIRECTORY_THAT_IS_GONE = ("sh", "-c", 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"')


def in_gone(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory that is not there any more."""
    gone = str(tmp_path / "gone")
    # What is to be imported is not found from there.
    environment = ("env", f"PYTHONPATH={os.getcwd()}", "PYTHONSAFEPATH=1")
    return run_command(*arguments, prefix=(*IN_A_DIRECTORY_THAT_IS_GONE, gone, *environment))


def test_a_working_directory_that_is_gone_is_no_matter_to_absolute_paths(tmp_path: Path) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    try:
        done = in_gone(tmp_path, "mount", str(where), "--background")
        assert (done.returncode, done.stderr) == (0, "")
        done = in_gone(tmp_path, "status", "--mount", str(where))
        assert (done.returncode, done.stderr) == (0, "")
        done = in_gone(tmp_path, "umount", str(where))
        assert (done.returncode, done.stderr) == (0, "")
        assert not is_mountpoint(where)
    finally:
        unmount(where)


@pytest.mark.parametrize("command", ["mount", "umount"])
def test_with_a_working_directory_that_is_gone_a_relative_path_is_refused(
    tmp_path: Path, command: str
) -> None:
    done = in_gone(tmp_path, command, "mount")
    assert done.returncode in (1, 32)
    assert done.stderr.startswith("Error: ")
    assert "directory" in done.stderr


def test_without_proc_it_serves_or_says_what_it_needs(tmp_path: Path) -> None:
    script = 'umount -l /proc && "$@" mount "$0" --background && "$@" umount "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(tmp_path), *COMMAND],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "/proc" in done.stderr


@pytest.mark.parametrize(
    "prefix",
    [
        ("env", "-i"),
        ("env", "LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0"),
        ("env", "LC_ALL=xx_XX.nonsense"),
        ("env", "-u", "HOME", "TMPDIR=/nowhere"),
        ("prlimit", "--nofile=64"),
        ("prlimit", "--memlock=0", "--core=0"),
        ("sh", "-c", 'umask 777; exec "$0" "$@"'),
        ("sh", "-c", 'umask 000; exec "$0" "$@"'),
    ],
    ids=" ".join,
)
def test_poor_surroundings_are_enough_for_a_server(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    target = tmp_path / "bound"
    where = tmp_path / "mount"
    where.mkdir()
    try:
        done = run_command(
            "mount", str(where), "--bind", str(target), "--background", prefix=prefix
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"ready: {where}/dev/ecryptfs\n"
        os.close(os.open(target, os.O_RDWR))
        done = run_command("umount", str(where), prefix=prefix)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        unmount(where)
        subprocess.run(["umount", "-l", str(target)], capture_output=True, check=False)


def test_a_bound_path_that_cannot_be_written_is_a_sentence_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    where, target = tmp_path / "mount", tmp_path / "bound"
    where.mkdir()
    done = run_command("mount", str(where), "--bind", str(target), prefix=("prlimit", "--fsize=0"))
    assert done.returncode == 32
    assert done.stderr == f"Error: cannot bind {target}: File too large\n"
    assert not target.exists()
    assert not is_mountpoint(where)


def test_too_few_descriptors_are_a_sentence_and_leave_nothing_mounted(tmp_path: Path) -> None:
    done = run_command("mount", str(tmp_path), "--background", prefix=("prlimit", "--nofile=10"))
    assert done.returncode in (1, 32)
    assert "\nError: " in f"\n{done.stderr}"
    assert "bug in ecryptfs-cuse" not in done.stderr
    assert not is_mountpoint(tmp_path)


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_a_name_that_is_no_text_is_served_and_written_as_it_is(tmp_path: Path, utf8: str) -> None:
    where = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    where.mkdir()
    environment = {**os.environ, "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    process = subprocess.Popen(
        [*COMMAND, "mount", str(where), "-v"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with ending(process, where):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready: " + os.fsencode(where) + b"/dev/ecryptfs\n"
        done = subprocess.run(
            [*COMMAND, "mount", str(where)], env=environment, capture_output=True, check=False
        )
        assert done.returncode == 32
        assert done.stderr.startswith(b"Error: " + os.fsencode(tmp_path) + rb"/\xff\xfe")


def test_what_cannot_be_asked_for_is_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_library(*_arguments: object, **_more: object) -> None:
        raise OSError("no library")

    monkeypatch.setattr("ctypes.CDLL", no_library)
    surroundings.forbid_core_dumps()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no library" in caplog.text


def test_a_server_that_is_killed_before_it_is_ready_is_told_by_the_signal() -> None:
    with pytest.raises(MountFailed, match="SIGKILL"):
        background.in_background(lambda _ready: os.kill(os.getpid(), signal.SIGKILL))


STARTER = """
import os, sys
from ecryptfs_cuse.cli.background import in_background

def work(ready):
    os.write(1, b"begun")
    os.read(0, 1)
    ready()
    os.write({said}, b"it went on")

in_background(work)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_start_that_is_ended_leaves_no_server_in_the_background(number: signal.Signals) -> None:
    heard, said = os.pipe()
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER.format(said=said)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[said],
    )
    os.close(said)
    assert starter.stdin is not None
    assert starter.stdout is not None
    assert starter.stdout.read(5) == b"begun"
    starter.send_signal(number)
    starter.wait(PATIENCE)
    if number != signal.SIGINT:  # Ctrl-C ends the child at once; else it finds out by itself
        starter.stdin.close()
    with open(heard, "rb") as file:
        assert file.read() == b""
    starter.stdin.close()
    starter.stdout.close()


def test_in_a_mount_that_is_gone_commands_work(tmp_path: Path) -> None:
    where = tmp_path / "mount"
    where.mkdir()
    status = f"{shlex.join(COMMAND)} status --mount {where}"
    gone = "while ls >/dev/null 2>&1; do :; done"
    script = f"cd {where}; umount -l {where}; {gone}; {status}; {status} --json"
    device = MountedDevice(where)
    try:
        done = subprocess.run(
            ["sh", "-c", script],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        device.check_end()
    finally:
        device.clean_up()
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Error: no device is mounted at ") == 2


@pytest.mark.parametrize("is_ignored", [False, True])
def test_ctrl_c_while_it_starts_ends_it_without_a_word(tmp_path: Path, is_ignored: bool) -> None:
    # Whatever is imported first sends it.
    (tmp_path / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\n")
    program = "from ecryptfs_cuse.cli.start import main; main()"
    ignoring = ("env", "--ignore-signal=INT") if is_ignored else ()
    done = subprocess.run(
        [*ignoring, sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if is_ignored:
        assert "ImportError" in done.stderr or "AttributeError" in done.stderr  # it went on
    else:
        assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
