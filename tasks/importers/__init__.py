"""Checkpoints of other libraries as tasks: recognised by their files, taken over, or refused."""
