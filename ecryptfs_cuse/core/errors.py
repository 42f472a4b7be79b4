"""The error of the emulated kernel side."""

import os


class DeviceError(OSError):
    """A call that the device, or the exchange through it, refuses; ``errno`` as the kernel's."""

    def __init__(self, number: int, why: str | None = None) -> None:
        super().__init__(number, why or os.strerror(number))
