"""What must hold before a container moves, resource by resource: looked at, judged, and changed nowhere."""
