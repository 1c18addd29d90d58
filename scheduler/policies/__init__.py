"""Batching policies: one module each, listed in `scheduler.policies.catalogue`."""
