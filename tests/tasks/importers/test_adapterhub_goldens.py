"""What the adapters library saved is served as the library serves it, or refused for a reason."""

import numpy as np
import pytest

from tasks.errors import ImportRefused, KindUnsupported, RankOutOfRange, TaskError
from tasks.importers.adapterhub import parse_adapterhub
from tasks.importers.imported import ImportedPet
from tests.oracles.goldens import VARIANTS, load_golden
from tests.tasks.importers.golden_checkpoints import SHAPE, backbone_tensors, golden_files
from tests.tasks.importers.served import engine_logits

TOLERANCE = 1e-5
"""Of the largest logit: the library computes in float32, too."""

HEADS_ALONE = ("bare", "distilbert-bare", "roberta-bare")
REFUSED: dict[str, tuple[type[TaskError], str]] = {
    **dict.fromkeys(
        (name for name in VARIANTS if "reft" in name),
        (KindUnsupported, "'reft' is not imported: ReFT edits hidden states of chosen positions"),
    ),
    **dict.fromkeys(
        ("double-seq-bn-invertible", "seq-bn-invertible"),
        (KindUnsupported, "change the embeddings through a network of their own"),
    ),
    "head-three-layers": (KindUnsupported, "has 3 layers, its pooler included"),
    "ia3-gated": (KindUnsupported, "gated IA3 scales by how a row's tokens are on average"),
    "prefix-gated-apart": (KindUnsupported, "one gate for keys and another for values"),
    "seq-bn-reduction-half": (RankOutOfRange, "bottleneck 64 is wider than the backbone (32)"),
}
IMPORTED = [name for name in VARIANTS if name not in REFUSED and name not in HEADS_ALONE]


def imported(name: str) -> ImportedPet:
    family = load_golden(name).family
    return parse_adapterhub(golden_files(name), SHAPE, backbone_tensors(family))


@pytest.mark.parametrize("name", IMPORTED)
def test_logits_are_the_librarys(name: str) -> None:
    """Rows of all lengths in one packed batch, against each of them alone in the library."""
    golden = load_golden(name)
    expected = [row.logits[-len(row.logits_without_pet) :] for row in golden.rows]

    logits = engine_logits(
        imported(name),
        golden.backbone,
        [row.token_ids for row in golden.rows],
        has_pairs=True,
    )

    for ours, theirs in zip(logits, expected, strict=True):
        assert ours.shape == np.atleast_1d(theirs).shape
        assert np.abs(ours - theirs).max() <= TOLERANCE * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("name", IMPORTED)
def test_every_tensor_is_used(name: str) -> None:
    """Those that the library saves twice, too; so there is nothing to warn of."""
    files = golden_files(name)
    all_keys = {key for tensors in files.tensors.values() for key in tensors}

    found = imported(name)

    assert found.used_keys == all_keys
    assert [finding for finding in found.findings if finding.severity == "warning"] == []


@pytest.mark.parametrize("name", IMPORTED)
def test_the_stored_form_holds_it(name: str) -> None:
    """Tensors are exactly those of the kind, and the kind goes through `task.json`."""
    found = imported(name)

    stored = found.pet.encode(SHAPE, found.tensors, "float32")

    assert stored.keys() == found.pet.tensor_specs(SHAPE).keys()
    assert type(found.pet).model_validate_json(found.pet.model_dump_json()) == found.pet
    assert found.origin == "adapters"
    assert found.base_model == f"tiny-{load_golden(name).family}"


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_counterpart_is_refused(name: str) -> None:
    """The message says what of it."""
    error, reason = REFUSED[name]

    with pytest.raises(error) as caught:
        imported(name)

    assert reason in str(caught.value)


@pytest.mark.parametrize("name", HEADS_ALONE)
def test_a_head_alone_is_no_adapter(name: str) -> None:
    """There is no `adapter_config.json`."""
    with pytest.raises(ImportRefused, match=r"has no adapter_config\.json"):
        imported(name)
