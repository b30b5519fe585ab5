"""A container's network: its port in the bridge, its namespace, its address, and packets that wait for it."""
