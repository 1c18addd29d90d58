"""Checkpoints of OpenDelta 0.3."""

from tasks.importers.opendelta.parse import parse_opendelta

__all__ = ["parse_opendelta"]
