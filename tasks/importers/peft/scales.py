"""IA3: vectors that scale the input or the output of linear layers."""

import numpy as np

from tasks.importers.imported import Finding
from tasks.importers.part import Part, build
from tasks.importers.peft.keys import PeftKeys, as_float32
from tasks.importers.peft.target import Taken, Target
from tasks.importers.site_patterns import names_of
from tasks.pets.ia3 import Ia3
from tasks.site_ops import SiteOps


def take_ia3(
    keys: PeftKeys, target: Target
) -> tuple[list[Part], dict[str, SiteOps], list[Finding]]:
    """Take IA3's vectors; [1, in] scales the input, [out, 1] the output.

    Raises:
        ImportRefused: If one does not fit or stands elsewhere.
    """
    modules = keys.modules("ia3_l")
    if not modules:
        return [], {}, []
    scales = {module: _take(keys, target, module) for module in modules}
    taken = Taken.at(target, modules, scales)
    inputs = {place for place, ops in taken.sites.items() if ops.input_scale is not None}
    tensors = {
        f"layers.{layer}.{site}.scale": ops.output_scale if ops.input_scale is None else
        ops.input_scale
        for (layer, site), ops in taken.sites.items()
    }  # fmt: skip
    parts = []
    if taken.sites:
        pet = build(
            Ia3,
            output_sites=names_of(taken.sites.keys() - inputs, target.shape),
            input_sites=names_of(inputs, target.shape),
        )
        parts.append(Part(pet, tensors))  # type: ignore[arg-type]  # each has one of both
    findings = []
    if all(np.all(values == 1) for values in tensors.values()):
        message = "every scale is 1: the adapter was never trained and changes nothing"
        findings.append(Finding("warning", "never_trained", message))
    return parts, taken.own, findings


def _take(keys: PeftKeys, target: Target, module: str) -> SiteOps:
    num_out, num_in = target.linear_size(module)
    if keys.shape(module, "ia3_l")[:1] == (1,):
        return SiteOps(input_scale=as_float32(keys.take(module, "ia3_l", 1, num_in)[0]))
    return SiteOps(output_scale=as_float32(keys.take(module, "ia3_l", num_out, 1)[:, 0]))
