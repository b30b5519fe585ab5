"""Transfer of a container's files: what they are, what has changed, and that they are on the disk."""
