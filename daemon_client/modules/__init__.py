"""The key modules that come with the daemon; each is found through its entry point alone."""
