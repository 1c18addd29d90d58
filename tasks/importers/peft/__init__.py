"""Checkpoints of PEFT: every kind whose change the packed engine can compute exactly."""
