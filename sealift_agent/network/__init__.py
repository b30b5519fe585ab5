"""A container's network: its cable, its namespace, its address, and packets that wait for it."""
