"""The parameters of the kernel's module."""

import os

import pytest

from ecryptfs_cuse.fuse.node import Directory, File, Node
from ecryptfs_cuse.nodes.device import DeviceFile, IdentityRule
from ecryptfs_cuse.nodes.parameters import Parameters
from ecryptfs_cuse.nodes.tree import device_tree
from tests.nodes.clock import Kernel
from tests.nodes.handles import CALLER


def test_the_defaults_are_those_of_linux() -> None:
    assert Parameters().shown() == {
        "ecryptfs_message_buf_len": 32,
        "ecryptfs_message_wait_timeout": 3,
        "ecryptfs_number_of_users": 4,
    }


@pytest.mark.parametrize("message_buf_len", [0, 1, 64, 65536])
def test_message_buf_len_is_0_to_65536(message_buf_len: int) -> None:
    assert Parameters(message_buf_len).shown()["ecryptfs_message_buf_len"] == message_buf_len


@pytest.mark.parametrize("message_buf_len", [-1, 65537, 100_000_000])
def test_another_message_buf_len_is_refused(message_buf_len: int) -> None:
    with pytest.raises(ValueError, match="message_buf_len"):
        Parameters(message_buf_len=message_buf_len)


@pytest.mark.parametrize("timeout", [-1, 0, 0.5, 3, 3600])
def test_message_wait_timeout_is_any_number_of_seconds(timeout: float) -> None:
    shown = Parameters(message_wait_timeout=timeout).shown()
    assert shown["ecryptfs_message_wait_timeout"] == timeout


@pytest.mark.parametrize(
    ("timeout", "shown"),
    [
        (3, b"3\n"),
        (3.0, b"3\n"),
        (-1.0, b"-1\n"),
        (1.5, b"1.5\n"),
        (1234567.0, b"1234567\n"),
        (1234567.125, b"1234567.125\n"),
        (0.1 + 0.2, b"0.30000000000000004\n"),
        (1e-7, b"0.0000001\n"),
        (2147483647.0, b"2147483647\n"),
    ],
)
def test_a_parameter_is_shown_with_all_its_digits(timeout: float, shown: bytes) -> None:
    kernel = Kernel()
    parameters = Parameters(message_wait_timeout=timeout)
    device = DeviceFile(kernel.miscdev, 0o600)
    rule = IdentityRule.USER_NAMESPACE
    node: Node = device_tree(device, kernel.messaging, kernel.exchange, parameters, rule)
    for name in ("sys", "module", "ecryptfs", "parameters", "ecryptfs_message_wait_timeout"):
        assert isinstance(node, Directory)
        node = node.children[name]
    assert isinstance(node, File)
    assert node.open(CALLER, os.O_RDONLY).read(1000, 0) == shown


def test_a_message_wait_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="message_wait_timeout"):
        Parameters(message_wait_timeout=float("nan"))


@pytest.mark.parametrize(("given", "shown"), [(1, 1), (32768, 32768), (100_000, 32768)])
def test_a_number_of_users_above_32768_is_taken_for_32768(given: int, shown: int) -> None:
    assert Parameters(number_of_users=given).shown()["ecryptfs_number_of_users"] == shown


@pytest.mark.parametrize("number_of_users", [0, -1])
def test_a_number_of_users_below_1_is_refused(number_of_users: int) -> None:
    with pytest.raises(ValueError, match="number_of_users"):
        Parameters(number_of_users=number_of_users)
