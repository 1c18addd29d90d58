"""Checkpoints of OpenDelta: served as its source has it, or refused for a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import BertModel

from tasks.errors import BadCheckpoint, KeyMissing, KindUnsupported, TaskError
from tasks.importers.imported import ImportedPet
from tasks.importers.opendelta import parse_opendelta
from tasks.pets.adapter import Adapter
from tasks.pets.bitfit import BitFit
from tasks.pets.combined import Combined
from tasks.pets.layer_norm import LayerNormTuning
from tasks.pets.prefix import Prefix
from tasks.pets.prompt import Prompt
from tests.oracles.goldens import BACKBONES, load_golden
from tests.oracles.opendelta_checkpoints import KINDS, expected_logits, write_checkpoint
from tests.tasks.importers.golden_checkpoints import (
    SHAPE,
    Files,
    Tensors,
    backbone_tensors,
    read_files,
)
from tests.tasks.importers.served import engine_logits
from tests.tasks.importers.test_adapterhub import JSON

TOLERANCE = 1e-5
LAYER = "bert.encoder.layer.0"
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def plain() -> BertModel:
    """The tiny backbone, with its pooler."""
    model: BertModel = BertModel.from_pretrained(BACKBONES / "bert", local_files_only=True)
    model.train(False)
    return model


def parse(files: Files) -> ImportedPet:
    return parse_opendelta(files, SHAPE, backbone_tensors("bert"))


def random(*shape: int) -> Any:  # noqa: ANN401
    return RNG.standard_normal(shape).astype(np.float32)


def files_of(delta_type: str, tensors: Tensors, **config: Any) -> Files:  # noqa: ANN401
    """Return a checkpoint of `BertForSequenceClassification` without a classifier."""
    document = {"delta_type": delta_type, "backbone_class": "BertForSequenceClassification"}
    return Files({"config.json": {**document, **config}}, {"pytorch_model.bin": tensors})


def bottleneck(prefix: str, width: int = 24) -> Tensors:
    return {
        f"{prefix}.modulelist.down_proj.weight": random(width, 32),
        f"{prefix}.modulelist.down_proj.bias": random(width),
        f"{prefix}.modulelist.up_proj.weight": random(32, width),
        f"{prefix}.modulelist.up_proj.bias": random(32),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_dense_computation(
    kind: str, plain: BertModel, tmp_path: Path
) -> None:
    """Rows of all lengths in one packed batch, against each of them alone."""
    written = write_checkpoint(kind, plain, tmp_path / kind)
    rows = load_golden("bare").rows

    found = parse(read_files(written.folder))
    logits = engine_logits(
        found, BACKBONES / "bert", [row.token_ids for row in rows], has_pairs=True
    )

    assert found.used_keys == written.tensors.keys()
    for row, ours in zip(rows, logits, strict=True):
        theirs = expected_logits(written, plain, row.token_ids, row.token_types)
        assert np.abs(ours - theirs).max() <= TOLERANCE * max(1.0, np.abs(theirs).max())


def test_the_backbone_cannot_be_verified(plain: BertModel, tmp_path: Path) -> None:
    """Its hash is over the printed form of a model of an old transformers."""
    found = parse(read_files(write_checkpoint("lora", plain, tmp_path / "lora").folder))

    (finding,) = found.findings
    assert (finding.severity, finding.code) == ("warning", "backbone_not_verified")
    assert (found.base_model, found.library_version) == ("tiny-bert", "0.3.2")


def test_biases_become_deltas() -> None:
    """So that float16 rounds the small change; what did not change is left out."""
    original = backbone_tensors("bert")
    path = "encoder.layer.1.attention.output.LayerNorm.bias"
    tensors = {f"bert.{name}": value for name, value in original.items() if name.endswith("bias")}
    del tensors["bert.pooler.dense.bias"]
    tensors[f"bert.{path}"] = original[path] + 1

    found = parse(files_of("bitfit", tensors))

    assert isinstance(found.pet, BitFit)
    assert found.pet.sites == ("1.attention_norm",)
    np.testing.assert_allclose(found.tensors["layers.1.attention_norm.bias"], 1, atol=1e-6)
    assert "unchanged_key" in {finding.code for finding in found.findings}


def test_a_whole_state_dict_is_taken_apart() -> None:
    """OpenDelta saves all of a model that was not told to hide what is frozen."""
    original = backbone_tensors("bert")
    tensors = {f"bert.{name}": value.copy() for name, value in original.items()}
    for tensor in ("weight", "bias"):
        tensors[f"bert.embeddings.LayerNorm.{tensor}"] += 0.5
    for layer in range(2):
        prefix = f"bert.encoder.layer.{layer}.attention.self.query.lora"
        tensors |= {f"{prefix}.lora_A": random(8, 32), f"{prefix}.lora_B": random(32, 8)}

    found = parse(files_of("lora", tensors))

    assert isinstance(found.pet, Combined)
    lora, norms = found.pet.parts
    assert (lora.kind, isinstance(norms, LayerNormTuning) and norms.sites) == (
        "lora",
        ("embeddings",),
    )
    assert found.used_keys == tensors.keys()


def test_a_weight_that_was_trained_is_refused() -> None:
    """Or it is another backbone's."""
    name = "encoder.layer.0.output.dense.weight"
    tensors = {f"bert.{name}": backbone_tensors("bert")[name] + 1}

    with pytest.raises(KindUnsupported, match=r"output\.dense\.weight differs from the backbone's"):
        parse(files_of("bitfit", tensors))


def test_bitfit_without_a_change_is_refused() -> None:
    """A task that is the backbone itself was not meant."""
    with pytest.raises(KindUnsupported, match="nothing was trained"):
        parse(files_of("bitfit", {}))


def test_projections_of_rank_one_are_multiplied_out() -> None:
    """A column times a row, element by element."""
    tensors: Tensors = {}
    for layer in range(2):
        prefix = f"bert.encoder.layer.{layer}.output.dense.low_rank_adapter"
        for name, num_in, num_out in (("down", 32, 8), ("up", 8, 32)):
            tensors[f"{prefix}.{name}_sampler.W_left"] = random(num_in, 1)
            tensors[f"{prefix}.{name}_sampler.W_right"] = random(1, num_out)
            tensors[f"{prefix}.{name}_sampler.b"] = random(num_out)

    found = parse(files_of("low_rank_adapter", tensors, reduction_factor=4))

    assert isinstance(found.pet, Adapter)
    assert (found.pet.placement, found.pet.bottleneck) == ("pfeiffer", 8)
    x = random(5, 32)
    prefix = f"{LAYER}.output.dense.low_rank_adapter.down_sampler"
    expected = x @ (tensors[f"{prefix}.W_left"] * tensors[f"{prefix}.W_right"])
    ours = x @ found.tensors["layers.0.ffn_output.adapter_down.weight"].T
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_an_adapter_behind_a_layer_norm_reads_and_adds_to_what_it_puts_out() -> None:
    """At a module that ends with one; nothing follows there."""
    tensors = bottleneck(f"{LAYER}.attention.adapter") | bottleneck(
        "bert.encoder.layer.1.attention.adapter"
    )

    pet = parse(files_of("adapter", tensors)).pet

    assert isinstance(pet, Adapter)
    assert (pet.placement, pet.reads, pet.adds_to) == ("attention", "normed", "normed")
    assert pet.skips_norm


def test_a_reparameterised_prefix_is_what_its_mlp_puts_out() -> None:
    """Keys and values of a layer lie beside each other."""
    torch.manual_seed(5)
    mlp = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 2 * 2 * 32))
    words = nn.Embedding(6, 7)
    prefix = f"{LAYER}.attention.reparams"
    tensors = {
        f"{prefix}.control_trans.{name}": value.numpy() for name, value in mlp.state_dict().items()
    }
    tensors[f"{prefix}.wte.weight"] = words.weight.detach().numpy()

    found = parse(files_of("prefix", tensors, embed_dim=7, mid_dim=9))

    with torch.inference_mode():
        states = mlp(words.weight).view(6, 4, 32).permute(1, 0, 2).split(2)
    assert isinstance(found.pet, Prefix)
    for layer, (keys, values) in enumerate(states):
        for name, expected in (("keys", keys), ("values", values)):
            ours = found.tensors[f"layers.{layer}.attention.prefix_{name}"]
            np.testing.assert_allclose(ours, expected.numpy(), atol=1e-6)


def test_a_plain_prefix_may_leave_layers_out() -> None:
    """Its tensors say in which layers it stands; that is told if nobody asked for it."""
    prefix = "bert.encoder.layer.1.attention.prefix"
    tensors = {f"{prefix}.past_key": random(6, 32), f"{prefix}.past_value": random(6, 32)}

    found = parse(files_of("prefix", tensors, reparameterize=False))

    assert isinstance(found.pet, Prefix)
    assert found.pet.leave_out == (0,)
    np.testing.assert_array_equal(
        found.tensors["layers.1.attention.prefix_keys"], tensors[f"{prefix}.past_key"]
    )
    assert "layers_absent" in {finding.code for finding in found.findings}


def test_a_soft_prompt_takes_positions_and_is_what_the_head_reads() -> None:
    """It stands among the word embeddings, before [CLS]."""
    tensors = {"soft_prompt_layer.soft_embeds": random(4, 32)}

    pet = parse(files_of("soft_prompt", tensors, soft_token_num=4)).pet

    assert isinstance(pet, Prompt)
    assert (pet.place, pet.enters, pet.pools_own) == ("first", "words", False)


def test_what_was_never_trained_is_told() -> None:
    """A LoRA starts with a B of zeros."""
    prefix = f"{LAYER}.attention.self.query.lora"
    tensors = {f"{prefix}.lora_A": random(8, 32), f"{prefix}.lora_B": np.zeros((32, 8), np.float32)}

    codes = {finding.code for finding in parse(files_of("lora", tensors)).findings}

    assert {"zero_lora_b", "layers_absent"} <= codes


@pytest.mark.parametrize(
    ("delta_type", "tensors", "config", "reason"),
    [
        ("compacter", {}, {}, "delta_type 'compacter' is not imported"),
        ("lora", {}, {"backbone_class": "T5Model"}, "'T5Model' is of no family"),
        (
            "lora",
            {"bert.pooler.dense.lora.lora_A": random(8, 32)},
            {},
            "a LoRA at pooler.dense",
        ),
        (
            "adapter",
            bottleneck(f"{LAYER}.attention.self.query.adapter"),
            {},
            "adapter at encoder.layer.0.attention.self.query",
        ),
        (
            "parallel_adapter",
            bottleneck(f"{LAYER}.attention.parallel_adapter"),
            {"modified_modules": ["attn@", "ff@"]},
            "around modules of one's own choice",
        ),
        (
            "low_rank_adapter",
            {f"{LAYER}.output.dense.low_rank_adapter.up_sampler.b": random(32)},
            {"low_rank_rank": 2},
            "low_rank_adapter of rank 2",
        ),
        ("prefix", {}, {"backbone_class": "DistilBertModel"}, "only how it works in BERT"),
        ("soft_prompt", {}, {"backbone_class": "DistilBertModel"}, "whether its vectors get"),
    ],
)
def test_what_is_not_certain_is_refused(
    delta_type: str, tensors: Tensors, config: dict[str, Any], reason: str
) -> None:
    """Each with the reason."""
    with pytest.raises(KindUnsupported) as caught:
        parse(files_of(delta_type, tensors, **config))

    assert reason in str(caught.value)


@pytest.mark.parametrize("kind", ["adapter", "lora", "parallel_adapter"])
def test_a_missing_tensor_is_named(kind: str, plain: BertModel, tmp_path: Path) -> None:
    """Of each pair and of each projection."""
    folder = write_checkpoint(kind, plain, tmp_path / kind).folder
    for key in read_files(folder).weights():
        files = read_files(folder)
        del files.weights()[key]

        with pytest.raises(KeyMissing) as caught:
            parse(files)

        assert key.removeprefix("bert.") in str(caught.value)


@pytest.mark.parametrize("delta_type", ["adapter", "lora", "prefix"])
def test_a_checkpoint_without_its_method_is_not_whole(delta_type: str) -> None:
    """The configuration names a method of which there is no tensor."""
    with pytest.raises((KeyMissing, BadCheckpoint)):
        parse(files_of(delta_type, {}))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    delta_type=st.sampled_from(["adapter", "lora", "prefix", "soft_prompt", "low_rank_adapter"]),
    config=st.dictionaries(
        st.sampled_from(
            [
                "backbone_class", "bottleneck_dim", "junk", "lora_alpha", "lora_r",
                "mid_dim", "modified_modules", "non_linearity", "reparameterize",
            ]
        ),
        JSON,
        max_size=3,
    ),
)  # fmt: skip
def test_whatever_a_configuration_says_an_error_is_typed(
    delta_type: str, config: dict[str, Any]
) -> None:
    """A PET comes out, or one of the errors that callers catch."""
    prefix = f"{LAYER}.attention.self.query.lora"
    tensors = {f"{prefix}.lora_A": random(8, 32), f"{prefix}.lora_B": random(32, 8)}
    tensors |= bottleneck(f"{LAYER}.output.dense.adapter")

    try:
        found = parse(files_of(delta_type, tensors, **config))
    except TaskError:
        return

    assert found.tensors.keys() == found.pet.tensor_specs(SHAPE).keys()
