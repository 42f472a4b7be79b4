"""The two errors of this layer: we were used wrongly, or the other side sent rubbish.

Neither carries octets of the packet it speaks of, because packets carry keys.
"""


class BuildError(ValueError):
    """The caller asked for octets that the format cannot express."""


class ParseError(ValueError):
    """The octets are not a value of the format."""


class LengthError(ParseError):
    """The octets do not start with a packet length.

    A class of its own because the kernel's verdict on it differs: see core/keystore.py.
    """
