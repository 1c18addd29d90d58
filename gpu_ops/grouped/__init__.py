"""Operators that take all tasks of a batch at once: pools of task weights, a slot for each row.

What differs per task lies in pools, tensors with one place (slot) per loaded task; a descriptor on
the device says which slot each row or each tile of rows belongs to. So one launch serves every
task of a batch, nothing is read back, and a captured CUDA graph serves the next batch too: its
descriptors, of fixed capacity, are filled anew. PetS launches once per task (section 4); one
launch for all is Punica's idea (Chen et al. 2024, section 4).

Operators of one place can run side by side: `operator_schedule` assigns them to streams, as PetS
does (section 5), and `streams` runs them.

Each operator takes CUDA tensors (its kernel in `gpu_ops/kernels/`, of the same name) and CPU
tensors (the same in plain torch, which the kernel is tested against).
"""
