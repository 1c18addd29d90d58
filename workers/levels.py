"""The backbone of each level, unless a worker is told another. Imports nothing heavy."""

from collections.abc import Mapping

LEVEL_BACKBONES: Mapping[int, str] = {0: "minilm-l3", 1: "minilm-l6"}
"""The real pair of the demo: level 1 costs twice level 0."""
