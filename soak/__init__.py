"""Strangers on one device, for as long as wanted: they may harm nobody but themselves.

``python -m soak`` mounts a device and lets many users loose on it, at random from a printed seed.
``people`` ask and answer, ``vicious`` tries what FUSE might not bear, ``syscalls`` makes any call
with any argument. ``honest`` are two who must not notice. ``check`` says what has to hold whenever
everybody has gone; ``rounds`` puts it all together.
"""
