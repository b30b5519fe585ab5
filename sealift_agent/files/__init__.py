"""A container's files on their way: what they are, what has changed, and that they are on the disk."""
