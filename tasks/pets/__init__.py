"""The PET kinds, one module each: hyperparameters, tensors on disk, ops in memory."""
