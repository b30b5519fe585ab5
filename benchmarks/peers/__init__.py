"""What moves containers today, on the same work under the same client, and the floor below which nobody gets."""
