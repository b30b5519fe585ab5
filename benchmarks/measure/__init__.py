"""What is measured beside the client: processor time, memory and traffic of each host, the tunnel's rate."""
