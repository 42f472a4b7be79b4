"""The files of the mounted tree: what binds the emulated kernel side to the hosting."""
