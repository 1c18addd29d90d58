"""Operators for the processor in C++, compiled on the machine that runs them; all are optional.

Each `.cpp` has a wrapper of the same name that is called like its torch operator in `gpu_ops/`,
and computes the same within float32 rounding. `python -m gpu_ops.compiled.build` compiles them;
where that was not done, or no compiler is, `library.load` returns None. Whoever runs operators
measures which of the two is faster.
"""
