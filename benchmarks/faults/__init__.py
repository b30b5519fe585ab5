"""The fault matrix: what can break, at every moment of a migration, and what must be true afterwards."""
