"""Conditions for moving a container, resource by resource. They are examined and judged, and nothing is changed."""
