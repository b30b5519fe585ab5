"""What is measured beside the client: each host's processor time, memory and traffic, the tunnel's rate, the machine."""
