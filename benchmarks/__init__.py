"""Workloads with clients that watch them, and what is measured with both."""
