"""Real programs in containers, each with a client that notices everything a migration could do to it."""
