"""Linux's /dev/ecryptfs in user space, for key daemons that cannot tell the difference.

To embed the device in a program: ``ecryptfs_cuse.serve``. Nothing is imported here, because a key
daemon needs ``ecryptfs_cuse.wire`` alone, and no FUSE.
"""

__version__ = "0.1.0"
