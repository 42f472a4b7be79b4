"""What a person types: the command ecryptfs-keyd."""
