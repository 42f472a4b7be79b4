"""What an exchange costs: ``python -m bench``."""
