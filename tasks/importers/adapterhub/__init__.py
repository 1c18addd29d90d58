"""Checkpoints of the AdapterHub's library `adapters`, of all its versions."""

from tasks.importers.adapterhub.parse import parse_adapterhub

__all__ = ["parse_adapterhub"]
