"""Hosting: a tree of nodes becomes a mounted file system. Knows nothing of eCryptfs.

``node`` says what is hosted, ``session`` hosts it, ``channel`` and ``operations`` are the two ways
in which requests reach a node.
"""
