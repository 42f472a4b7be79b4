"""Octets to values and back: no I/O, no state.

Each format is declared once, with construct; callers see frozen dataclasses and two errors.
"""
