"""One migration: its session, its steps, the cutover, the report."""
