"""The parameters of the kernel's module."""

import pytest

from ecryptfs_cuse.nodes.parameters import Parameters


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
