"""A container's network: its bridge port, its namespace, its address, and packets that are held for it."""
