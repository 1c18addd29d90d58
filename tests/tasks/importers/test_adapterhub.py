"""Checkpoints of the adapters library whose files do not go together, and what is told of them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.backbone_shape import BackboneShape
from tasks.errors import BadCheckpoint, KeyMissing, KindUnsupported, TaskError, WrongBackbone
from tasks.importers.adapterhub import parse_adapterhub
from tasks.importers.imported import ImportedPet
from tests.tasks.importers.golden_checkpoints import SHAPE, Files, backbone_tensors, golden_files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)

OPTIONS = (
    "alpha", "architecture", "attn_matrices", "bottleneck_size", "combine", "composition_mode",
    "configs", "flat", "invertible_adapter", "junk", "leave_out", "non_linearity", "phm_dim",
    "phm_rank", "prefix_length", "r", "reduction_factor", "residual_before_ln", "scaling",
    "use_dora", "use_gating", "vera_d",
)  # fmt: skip


def parse(files: Files, shape: BackboneShape = SHAPE) -> ImportedPet:
    return parse_adapterhub(files, shape, backbone_tensors("bert"))


@pytest.mark.parametrize(
    "variant", ["seq-bn", "compacter", "lora", "dora", "vera", "ia3", "prefix", "prompt", "unipelt"]
)
def test_a_missing_tensor_is_named(variant: str) -> None:
    """Whichever it is."""
    for key in golden_files(variant).weights():
        if ".pool." in key:
            continue  # a copy
        files = golden_files(variant)
        del files.weights()[key]

        with pytest.raises(KeyMissing) as caught:
            parse(files)

        assert key.removeprefix("bert.") in str(caught.value)


def test_a_tensor_too_many_is_told() -> None:
    """The task is made without it."""
    files = golden_files("seq-bn")
    files.weights()["bert.pooler.dense.bias"] = np.ones(32, np.float32)

    found = parse(files)

    (finding,) = found.findings
    assert (finding.code, "bert.pooler.dense.bias" in finding.message) == ("unused_key", True)
    assert "bert.pooler.dense.bias" not in found.used_keys


@pytest.mark.parametrize(
    ("variant", "ending", "code"),
    [
        ("seq-bn", ("adapter_up.weight", "adapter_up.bias"), "zero_up"),
        ("compacter", ("adapter_up.W_right", "adapter_up.b"), "zero_up"),
        ("lora", ("lora_B",), "zero_lora_b"),
    ],
)
def test_what_was_never_trained_is_told(variant: str, ending: tuple[str, ...], code: str) -> None:
    """Zero up projections leave the backbone as it is."""
    files = golden_files(variant)
    for key, tensor in files.weights().items():
        if key.endswith(ending):
            files.weights()[key] = np.zeros_like(tensor)

    assert code in {finding.code for finding in parse(files).findings}


def test_a_copy_in_the_pool_must_be_the_same() -> None:
    """Which of two different prefixes the library takes is an accident."""
    files = golden_files("prefix-flat")
    (key,) = (key for key in files.weights() if "layer.1" in key and ".pool." in key)
    files.weights()[key] = files.weights()[key] + 1

    with pytest.raises(BadCheckpoint, match="differs from the tensor that it is a copy of"):
        parse(files)


def test_another_hidden_size_is_another_backbone() -> None:
    """Told by the configuration, before the shapes of tensors would."""
    files = golden_files("seq-bn")
    files.documents["adapter_config.json"]["hidden_size"] = 768

    with pytest.raises(WrongBackbone, match="768, the backbone has 32"):
        parse(files)


def test_more_layers_than_the_checkpoint_has_are_missing_keys() -> None:
    """Nothing is left at zero silently."""
    deeper = BackboneShape(3, 32, 4, 64, 96, 64)

    with pytest.raises(KeyMissing, match=r"encoder\.layer\.2\.output\.adapters\.sst-2"):
        parse(golden_files("seq-bn"), deeper)


def test_fewer_layers_leave_tensors_that_are_told() -> None:
    """The checkpoint is for a deeper backbone."""
    shallower = BackboneShape(1, 32, 4, 64, 96, 64)

    codes = [finding.code for finding in parse(golden_files("seq-bn"), shallower).findings]

    assert codes == ["unused_key"]


def test_dora_needs_the_weights_that_it_was_trained_on() -> None:
    """Its norms are of the backbone's matrices."""
    with pytest.raises(WrongBackbone, match=r"encoder\.layer\.0\.attention\.self\.query\.weight"):
        parse_adapterhub(golden_files("dora"), SHAPE, {})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("adapter_fusion_config.json", "AdapterFusion attends over several adapters"),
        ("adapter_setup.json", "it composes several adapters"),
        ("adapter_interface.json", "the library's plug-in interface"),
    ],
)
def test_folders_with_more_than_an_adapter_are_refused(name: str, reason: str) -> None:
    """Each with the reason."""
    files = golden_files("seq-bn")
    files.documents[name] = {}

    with pytest.raises(KindUnsupported) as caught:
        parse(files)

    assert reason in str(caught.value)


def test_a_family_that_tasks_cannot_stand_on_is_refused() -> None:
    """By the configuration's `model_type`."""
    files = golden_files("seq-bn")
    files.documents["adapter_config.json"]["model_type"] = "gpt2"

    with pytest.raises(KindUnsupported, match="adapters for 'gpt2' are not imported"):
        parse(files)


def test_a_checkpoint_without_weights_is_not_whole() -> None:
    """Neither safetensors nor a pickle."""
    files = golden_files("seq-bn")
    files.tensors = {}

    with pytest.raises(BadCheckpoint, match=r"none of adapter\.safetensors, pytorch_adapter\.bin"):
        parse(files)


def test_tensors_of_a_bare_model_have_no_prefix() -> None:
    """A checkpoint of `BertModel` itself is the same PET."""
    expected = parse(golden_files("lora"))
    files = golden_files("lora")
    bare = {key.removeprefix("bert."): tensor for key, tensor in files.weights().items()}
    files.tensors["adapter.safetensors"] = bare

    found = parse(files)

    assert found.pet == expected.pet
    assert found.used_keys > bare.keys()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    variant=st.sampled_from(["seq-bn", "compacter", "lora", "ia3", "prefix", "prompt", "unipelt"]),
    changes=st.dictionaries(
        st.sampled_from(OPTIONS),
        JSON,
        max_size=4,
    ),
    around=st.dictionaries(
        st.sampled_from(["config", "name", "version", "type", "hidden_size", "junk"]),
        JSON,
        max_size=1,
    ),
    head=st.dictionaries(
        st.sampled_from(["head_type", "layers", "activation_function", "label2id", "num_labels"]),
        JSON,
        max_size=2,
    ),
)
def test_whatever_a_configuration_says_an_error_is_typed(
    variant: str, changes: dict[str, Any], around: dict[str, Any], head: dict[str, Any]
) -> None:
    """A PET comes out, or one of the errors that callers catch."""
    files = golden_files(variant)
    files.config().update(changes)
    files.documents["adapter_config.json"].update(around)
    files.documents["head_config.json"]["config"].update(head)

    try:
        found = parse(files)
    except TaskError:
        return

    assert found.tensors.keys() >= found.pet.tensor_specs(SHAPE).keys()
