"""Octets that nobody would think of: ``python -m fuzz``."""
