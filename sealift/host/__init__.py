"""A Docker host over SSH: commands, Docker, CRIU, files, and the agents."""
