"""Formats of a fixed size, declared with construct and read by the standard library's struct.

What construct compiles makes two Containers a call; for a few integers that takes ten times as
long as reading them.
"""

import struct

from construct import Struct


def fixed(form: Struct) -> struct.Struct:
    """The integers of ``form`` in the order in which it declares them, all in one byte order."""
    fields: list[str] = [field.subcon.fmtstr for field in form.subcons]  # such as ">L"
    (order,) = {field[0] for field in fields}
    return struct.Struct(order + "".join(field[1] for field in fields))
