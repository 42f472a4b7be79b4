"""The parameters of the kernel's module."""

from dataclasses import dataclass

MESSAGE_BUF_LEN_MAX = 1 << 16
MESSAGE_WAIT_TIMEOUT_MAX = 2**31 - 1
UINT_MAX = 2**32 - 1
NUMBER_OF_USERS_MAX = 32768
"""ECRYPTFS_MAX_NUM_USERS: a larger number is taken for this one."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of the kernel's module, with its defaults.

    message_buf_len: how many requests can wait at a time, all users together, 0 to 65536.
    message_wait_timeout: how long each waits, in seconds, up to 2**31 - 1; 0 or less: not at all.
    number_of_users: an estimate, 1 to 2**32 - 1; of no effect here.

    Raises ValueError for a value outside these.
    """

    message_buf_len: int = 32
    message_wait_timeout: float = 3
    number_of_users: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.message_buf_len <= MESSAGE_BUF_LEN_MAX:
            raise ValueError(
                f"message_buf_len is 0 to {MESSAGE_BUF_LEN_MAX}, not {self.message_buf_len}"
            )
        if not abs(self.message_wait_timeout) <= MESSAGE_WAIT_TIMEOUT_MAX:  # nor not a number
            raise ValueError(
                f"message_wait_timeout is a number of seconds up to {MESSAGE_WAIT_TIMEOUT_MAX}, "
                f"not {self.message_wait_timeout}"
            )
        if not 1 <= self.number_of_users <= UINT_MAX:
            raise ValueError(f"number_of_users is 1 to {UINT_MAX}, not {self.number_of_users}")

    def shown(self) -> dict[str, float]:
        """The parameters under the names that they have in sysfs, where modules show theirs."""
        return {
            "ecryptfs_message_buf_len": self.message_buf_len,
            "ecryptfs_message_wait_timeout": self.message_wait_timeout,
            "ecryptfs_number_of_users": min(self.number_of_users, NUMBER_OF_USERS_MAX),
        }
