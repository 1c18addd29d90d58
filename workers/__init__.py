"""The PET inference engine: backbones, task manager, packed runner, cascade, worker loop."""
