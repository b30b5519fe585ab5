"""The steps of a migration as Prefect tasks, one file each: what a step does is in `sealift`, by the same name.

A task takes the live session, so nothing of it is cached or persisted, and returns the step's record.
"""
