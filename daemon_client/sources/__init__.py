"""Where keys are named: the configuration, a directory, tokens in the kernel's keyring."""
