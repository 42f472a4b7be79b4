"""The reference key daemon."""
