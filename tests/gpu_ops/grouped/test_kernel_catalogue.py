"""The catalogue has every kernel file, and compiles every kernel once."""

import torch

from gpu_ops.grouped import ragged_head
from gpu_ops.grouped.kernel_catalogue import FILES, compile_kernels
from gpu_ops.grouped.kernel_file import Kernel, KernelFile
from tests.gpu_ops.grouped.kernel_files import kernel_files


def test_no_file_is_missing() -> None:
    """A new operator that is left out would be compiled while a service answers."""
    assert {file.name for file in FILES} == {file.name for file in kernel_files()}


def test_every_kernel_of_a_type_is_asked_for_and_heads_in_float32() -> None:
    """Each instance once."""
    asked: list[str] = []

    class Recorder:
        def get(self, file: KernelFile, name: str) -> Kernel:
            asked.append(name)
            return None  # type: ignore[return-value]  # nothing is launched

    compile_kernels(Recorder(), torch.bfloat16)

    heads = [ragged_head.FILE.name_of(t, torch.float32) for t in ragged_head.FILE.templates]
    others = [
        file.name_of(template, torch.bfloat16)
        for file in FILES
        if file is not ragged_head.FILE
        for template in file.templates
    ]
    assert sorted(asked) == sorted(heads + others)
