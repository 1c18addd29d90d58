"""Configurations of all the library's versions come to the same PET."""

from typing import Any

import numpy as np
import pytest

from tasks.errors import BadCheckpoint, KindUnsupported
from tasks.importers.adapterhub import parse_adapterhub
from tasks.importers.imported import ImportedPet
from tasks.pets.adapter import Adapter
from tasks.pets.lora import Lora
from tests.tasks.importers.golden_checkpoints import SHAPE, Files, backbone_tensors, golden_files

STRINGS = {
    "seq-bn": "pfeiffer[reduction_factor=4]",
    "seq-bn-reduction-16": "seq_bn",
    "double-seq-bn": "houlsby[reduction_factor=4]",
    "par-bn": "parallel[reduction_factor=4]",
    "par-bn-scaling-learned": "scaled_parallel[reduction_factor=4]",
    "compacter": "compacter[reduction_factor=4]",
    "compacter-plus-plus": "compacter++[reduction_factor=4]",
    "prefix-flat": "prefix_tuning_flat[prefix_length=4]",
    "prompt": "prompt_tuning[prompt_length=5]",
    "lora": "lora",
    "ia3": "ia3",
    "dora": "dora[r=4, alpha=8]",
    "vera": "vera[r=4, alpha=8]",
    "dvora": "dvora[r=4, alpha=8]",
    "mam": "prefix_tuning[prefix_length=4, bottleneck_size=8] | par_bn[reduction_factor=4]",
}
"""Golden -> the string that says the same."""


def parse(files: Files) -> ImportedPet:
    return parse_adapterhub(files, SHAPE, backbone_tensors("bert"))


def changed(variant: str, **changes: Any) -> Files:  # noqa: ANN401
    """Return a golden with another configuration of its method."""
    files = golden_files(variant)
    files.config().update(changes)
    return files


@pytest.mark.parametrize("variant", STRINGS)
def test_a_string_is_the_whole_configuration(variant: str) -> None:
    """Of today's names and of the early ones, with options and with unions."""
    expected = parse(golden_files(variant))
    files = golden_files(variant)
    files.documents["adapter_config.json"]["config"] = STRINGS[variant]

    found = parse(files)

    assert found.pet == expected.pet
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in found.tensors.items():
        np.testing.assert_array_equal(tensor, expected.tensors[name])


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("unheard", KindUnsupported, "'unheard' is none that is known here"),
        ("loreft", KindUnsupported, "'reft' is not imported"),
        ("mtl_lora", KindUnsupported, "MTL-LoRA shares factors among tasks"),
        ("seq_bn_inv", KindUnsupported, "change the embeddings through a network"),
        ("seq_bn[reduction_factor=__import__('os')]", BadCheckpoint, "cannot be read"),
        ("seq_bn[4]", BadCheckpoint, "are not keys and values"),
        ("mam|lora", KindUnsupported, "'union' is not imported"),
    ],
)
def test_strings_that_are_refused(text: str, error: type[Exception], reason: str) -> None:
    """Options are read as literals, and nothing is run."""
    files = golden_files("seq-bn")
    files.documents["adapter_config.json"]["config"] = text

    with pytest.raises(error) as caught:
        parse(files)

    assert reason in str(caught.value)


def test_names_of_early_versions_are_todays() -> None:
    """Of tensors and of configuration keys; an invertible adapter was named but not used."""
    expected = parse(golden_files("double-seq-bn"))
    files = golden_files("double-seq-bn")
    (name, weights), *_ = [(n, t) for n, t in files.tensors.items() if "head" not in n]
    files.tensors[name] = {
        key.replace(
            "attention.output.adapters", "attention.output.attention_text_task_adapters"
        ).replace(".output.adapters", ".output.layer_text_task_adapters"): tensor
        for key, tensor in weights.items()
    }
    document = files.documents["adapter_config.json"]
    config = document["config"]
    config["MH_Adapter"], config["Output_Adapter"] = True, True
    config["LN_after"], config["LN_before"] = False, False
    config["invertible_adapter"] = {"block_type": "nice", "reduction_factor": 2}
    for key in ("mh_adapter", "output_adapter", "ln_after", "ln_before", "inv_adapter"):
        del config[key]
    document["type"] = "text_task"

    found = parse(files)

    assert found.pet == expected.pet
    for name, tensor in found.tensors.items():
        np.testing.assert_array_equal(tensor, expected.tensors[name])
    assert [finding.code for finding in found.findings] == []


@pytest.mark.parametrize(
    ("version", "activation", "expected"),
    [
        (None, "gelu", "gelu_new"),
        (None, "gelu_orig", "gelu"),
        (None, "relu", "relu"),
        ("2.0.0", "gelu", "gelu"),
    ],
)
def test_gelu_without_a_version_is_the_approximation(
    version: str | None, activation: str, expected: str
) -> None:
    """As the library reads such a configuration."""
    files = changed("seq-bn", non_linearity=activation)
    files.documents["adapter_config.json"]["version"] = version

    pet = parse(files).pet

    assert isinstance(pet, Adapter)
    assert pet.activation == expected


@pytest.mark.parametrize(
    ("version", "alpha"),
    [
        ("adapters.1.0.1", 4.0),
        ("adapters.0.2.2", 4.0),
        ("adapters.1.1.0.dev0", 4.0),
        ("adapters.1.1.0", 16.0),
        ("adapters.1.1", 16.0),
        ("adapters.10.0.0", 16.0),
        ("1.0.1", 16.0),
        (None, 16.0),
    ],
)
def test_alpha_is_the_rank_below_version_1_1(version: str | None, alpha: float) -> None:
    """Only for versions that say whose they are, as the library has it."""
    files = golden_files("lora-alpha-above-rank")
    files.documents["adapter_config.json"]["version"] = version

    found = parse(files)

    assert isinstance(found.pet, Lora)
    assert found.pet.alpha == alpha
    assert ("alpha_is_rank" in {f.code for f in found.findings}) == (alpha == 4.0)


def test_alpha_within_an_early_union_is_told() -> None:
    """The library takes it as it stands, and so it may not be what was trained."""
    files = golden_files("unipelt")
    files.documents["adapter_config.json"]["version"] = "adapters.1.0.0"

    assert "unsure_alpha" in {finding.code for finding in parse(files).findings}


def test_keys_that_are_not_known_are_told() -> None:
    """A later version may compute something else with them."""
    found = parse(changed("lora", use_rslora=True))

    (finding,) = found.findings
    assert (finding.severity, finding.code) == ("warning", "unknown_config_key")
    assert "use_rslora" in finding.message


def test_a_width_by_layer() -> None:
    """The keys of the mapping are strings, and `default` is for all others."""
    pet = parse(golden_files("seq-bn-reduction-per-layer")).pet

    assert isinstance(pet, Adapter)
    assert (pet.bottleneck, pet.bottlenecks) == (2, {"1.ffn_output": 8})


@pytest.mark.parametrize(
    ("variant", "changes", "reason"),
    [
        ("seq-bn", {"output_adapter": False}, "neither mh_adapter nor output_adapter"),
        ("seq-bn", {"leave_out": [0, 1]}, "places no adapter in any layer"),
        ("seq-bn", {"non_linearity": "mish"}, "activation 'mish' has no counterpart"),
        ("seq-bn", {"reduction_factor": {"0": 4.0}}, "neither layer 1 nor a default"),
        ("seq-bn", {"inv_adapter": "nice"}, "change the embeddings through a network"),
        (
            "seq-bn",
            {"residual_before_ln": "post_add", "original_ln_before": False},
            "post_add without original_ln_before",
        ),
        ("compacter", {"scaling": "channel"}, "scaled channel by channel"),
        ("lora", {"selfattn_lora": False}, "adapts no module"),
        ("prefix", {"leave_out": [0, 1]}, "leaves out every layer"),
        ("ia3", {"r": 2}, "IA3 with r 2"),
    ],
)
def test_options_without_a_counterpart_are_refused(
    variant: str, changes: dict[str, Any], reason: str
) -> None:
    """Each with what is wrong with it."""
    with pytest.raises(KindUnsupported) as caught:
        parse(changed(variant, **changes))

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("seq-bn", {"mh_adapter": "no"}),
        ("seq-bn", {"reduction_factor": 0}),
        ("seq-bn", {"scaling": 1e300}),
        ("lora", {"r": 0}),
        ("lora", {"alpha": -1}),
        ("lora", {"composition_mode": "multiply"}),
        ("prefix", {"prefix_length": 10**12}),
        ("prompt", {"combine": "suffix"}),
    ],
)
def test_values_that_cannot_be_are_refused(variant: str, changes: dict[str, Any]) -> None:
    """Before any tensor is made of that size."""
    with pytest.raises(BadCheckpoint, match=f"config.{next(iter(changes))}"):
        parse(changed(variant, **changes))
