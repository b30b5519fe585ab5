"""Transfer of a container's memory: in rounds before the freeze, in the freeze, or after the restore."""
