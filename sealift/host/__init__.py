"""A Docker host over SSH: commands, Docker, CRIU, files, and the agent that acts while nothing orchestrates."""
