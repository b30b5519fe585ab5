"""A container's memory on its way: in rounds beforehand, in the freeze, or behind the restored processes."""
