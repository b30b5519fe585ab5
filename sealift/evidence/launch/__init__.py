"""What the owner computes and makes for a launch: the expected digest, id blocks, sessions, measurements, secrets."""
