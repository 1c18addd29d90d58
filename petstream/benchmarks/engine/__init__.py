"""`petstream bench engine`: the packed engine beside what else serves many encoder tasks.

`child`, `cases`, `weight_files`, `row_batches`, `system` and the peers' modules of `systems/` run
in the peers' environments too: they import numpy, safetensors and their own library, and of ours
only each other and what of `tasks` needs nothing: `process_tuning`, `backbone_families`, `sites`.
"""
