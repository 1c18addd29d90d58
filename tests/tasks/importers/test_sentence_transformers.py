"""Folders of sentence-transformers: what of them becomes an embedding, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import BertModel

from tasks.description import EmbeddingLayout
from tasks.errors import (
    ArtifactMissing,
    BadCheckpoint,
    KeyMissing,
    KindUnsupported,
    LabelsMismatch,
    PathEscape,
    TaskError,
    WrongBackbone,
)
from tasks.importers.backbone_tensors import BackboneTensors
from tasks.importers.importing import Import, ImportOptions, import_checkpoint
from tests.tasks.importers.checkpoints import HIDDEN, codes, lora_config, lora_tensors, write_peft
from tests.tasks.importers.sentence_folders import (
    ALL,
    CLS,
    MEAN,
    PLAIN,
    add_modules,
    dense_config,
    dense_tensors,
    write_json,
)
from tests.tasks.importers.tiny_models import ROWS, assert_same, engine_logits

pytestmark = pytest.mark.filterwarnings("ignore")
Change = Callable[[Path], object]


@pytest.fixture
def folder(backbone_folder: Path, tmp_path: Path) -> Path:
    """The backbone as the library would save it, with mean pooling and vectors of length 1."""
    return add_modules(shutil.copytree(backbone_folder, tmp_path / "model"))


def imported(folder: Path, backbone: BackboneTensors, **options: Any) -> Import:  # noqa: ANN401
    return import_checkpoint(folder, backbone, ImportOptions(**options))


def test_an_unchanged_backbone_stores_nothing(
    folder: Path, backbone: BackboneTensors, tmp_path: Path
) -> None:
    """The task is its description: how to pool, and that vectors have length 1."""
    found = imported(folder, backbone)
    artifact = found.write(tmp_path / "task", name="sentences")

    assert found.imported.origin == "sentence-transformers"
    assert (found.kind, found.labels, found.level.pooling) == ("embedding", (), "mean")
    assert found.embedding == EmbeddingLayout(dimensions=HIDDEN, normalise=True)
    assert codes(found) == {"changes_nothing"}
    stored = (tmp_path / "task" / "level-0.safetensors").read_bytes()
    assert safetensors.numpy.load(stored) == {}
    assert artifact.description.embedding == found.embedding


def test_a_pooler_that_no_vector_passes_through_is_not_warned_of(
    folder: Path, tmp_path: Path
) -> None:
    """The library saves BERT's with every model; backbones here may be without."""
    bare = shutil.copytree(folder, tmp_path / "bare")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    kept = {name: values for name, values in tensors.items() if "pooler" not in name}
    assert len(kept) == len(tensors) - 2
    safetensors.numpy.save_file(kept, bare / "model.safetensors")

    assert codes(imported(folder, BackboneTensors(bare))) == {"changes_nothing"}


def test_modules_have_other_names_in_version_6(folder: Path, backbone: BackboneTensors) -> None:
    """Where the library keeps them does not matter, what they are does."""
    names = (
        "base.modules.transformer.Transformer",
        "sentence_transformer.modules.pooling.Pooling",
        "base.modules.normalize.Normalize",
    )
    change_modules(
        folder,
        lambda modules: [
            module.update(type=f"sentence_transformers.{name}")
            for module, name in zip(modules, names, strict=True)
        ],
    )

    assert imported(folder, backbone).kind == "embedding"


def with_dense(activation: str, num_out: int, *kinds: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "kinds": kinds or ALL,
        "dense": dense_config(activation, HIDDEN, num_out) | fields,
        "tensors": dense_tensors(HIDDEN, num_out),
    }


@pytest.mark.parametrize(
    ("modules", "dimensions"),
    [
        ({"kinds": PLAIN, "pooling": CLS}, HIDDEN),
        (with_dense("Identity", 5), 5),
        (with_dense("Tanh", 7), 7),
        (with_dense("Tanh", HIDDEN, "Transformer", "Pooling", "Dense") | {"pooling": CLS}, HIDDEN),
    ],
    ids=["cls", "identity", "tanh", "tanh-cls"],
)
def test_vectors_are_those_that_the_modules_compute(
    modules: dict[str, Any],
    dimensions: int,
    backbone: BackboneTensors,
    backbone_folder: Path,
    tmp_path: Path,
) -> None:
    """A fine-tune of every weight, its pooling, its Dense layer; against torch."""
    model = BertModel.from_pretrained(backbone_folder)
    model.train(False)
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(tmp_path / "model")
    found = imported(add_modules(tmp_path / "model", **modules), backbone, dtype="float32")

    vectors = engine_logits(found, backbone_folder, tmp_path / "task")

    assert_same(vectors, [expected_vector(model, ids, modules) for ids in ROWS])
    assert found.embedding == EmbeddingLayout(
        dimensions=dimensions, normalise="Normalize" in modules["kinds"]
    )


def expected_vector(
    model: BertModel, ids: NDArray[np.int64], modules: dict[str, Any]
) -> NDArray[np.float32]:
    """Return what the modules make of one row, before it is normalised."""
    with torch.inference_mode():
        states = model(torch.from_numpy(ids)[None]).last_hidden_state[0]
        vector = states[0] if modules.get("pooling") == CLS else states.mean(0)
        if "dense" in modules:
            weight, bias = (torch.from_numpy(values) for values in modules["tensors"].values())
            vector = functional.linear(vector, weight, bias)
            if modules["dense"]["activation_function"].endswith("Tanh"):
                vector = vector.tanh()
        found: NDArray[np.float32] = vector.numpy()
    return found


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (MEAN, "mean"),
        (MEAN | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"word_embedding_dimension": HIDDEN}, "mean"),
        (CLS, "cls"),
        (CLS | {"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_every_version_says_its_pooling_in_its_own_way(
    pooling: dict[str, Any], expected: str, folder: Path, backbone: BackboneTensors
) -> None:
    add_modules(folder, pooling=pooling)

    assert imported(folder, backbone).level.pooling == expected


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ({}, 40),
        ({"sentence_bert_config": {"max_seq_length": 24, "do_lower_case": False}}, 24),
        ({"sentence_roberta_config": {"max_seq_length": 24}}, 24),
        ({"tokenizer_config": {"model_max_length": 32}}, 32),
        ({"tokenizer_config": {"model_max_length": 10**30}}, 40),
        ({"sentence_bert_config": {"max_seq_length": 512}}, 40),
    ],
)
def test_texts_are_cut_where_the_library_cuts_them(
    documents: dict[str, Any], expected: int, folder: Path, backbone: BackboneTensors
) -> None:
    """At most at the backbone's last position."""
    add_modules(folder, **documents)

    assert imported(folder, backbone).level.max_tokens == expected


def test_prompts_and_lower_case_are_told(folder: Path, backbone: BackboneTensors) -> None:
    """They are the caller's to write."""
    add_modules(
        folder,
        sentence_bert_config={"do_lower_case": True},
        config_sentence_transformers={
            "__version__": {"sentence_transformers": "5.1.0"},
            "prompts": {"query": "query: ", "document": ""},
            "default_prompt_name": "query",
        },
    )

    found = imported(folder, backbone)

    assert found.imported.library_version == "5.1.0"
    assert codes(found) == {"changes_nothing", "prompts", "lower_case"}
    (message,) = (f.message for f in found.findings if f.code == "prompts")
    assert "query: 'query: '" in message
    assert "always writes that of 'query'" in message


def test_an_encoder_in_a_folder_of_its_own_is_found(
    folder: Path, backbone: BackboneTensors
) -> None:
    """As versions before 1 wrote it."""
    (folder / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(folder / "0_Transformer" / name)
    change_modules(folder, lambda modules: modules[0].update(path="0_Transformer"))

    assert codes(imported(folder, backbone)) == {"changes_nothing"}


def test_an_adapter_of_peft_in_the_folder_is_the_encoder(
    backbone: BackboneTensors, tmp_path: Path
) -> None:
    tensors = {k: v for k, v in lora_tensors().items() if "classifier" not in k}
    config = lora_config(task_type="FEATURE_EXTRACTION", modules_to_save=None)
    add_modules(write_peft(tmp_path / "model", tensors, config))

    found = imported(tmp_path / "model", backbone)

    assert (found.level.pet.kind, found.imported.origin) == ("lora", "sentence-transformers")
    assert found.embedding == EmbeddingLayout(dimensions=HIDDEN, normalise=True)
    assert found.imported.used_keys == frozenset(tensors)


def test_whoever_imports_may_normalise_and_not_pool_otherwise(
    folder: Path, backbone: BackboneTensors
) -> None:
    found = imported(folder, backbone, normalise=False, pooling="mean")

    assert found.embedding == EmbeddingLayout(dimensions=HIDDEN, normalise=False)
    with pytest.raises(KindUnsupported, match="pool by mean"):
        imported(folder, backbone, pooling="cls")
    with pytest.raises(LabelsMismatch, match="no labels"):
        imported(folder, backbone, labels=("a", "b"))


def test_another_kind_or_head_takes_the_encoder_alone(
    folder: Path, backbone: BackboneTensors, tmp_path: Path
) -> None:
    """A classifier that somebody trained on its vectors."""
    head = {"weight": np.ones((3, HIDDEN), np.float32), "bias": np.zeros(3, np.float32)}
    safetensors.numpy.save_file(head, tmp_path / "head.safetensors")

    found = imported(folder, backbone, head=tmp_path / "head.safetensors", pooling="mean")

    assert (found.kind, found.embedding, len(found.labels)) == ("single_label", None, 3)
    assert found.imported.origin == "transformers"


def change_modules(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    change(modules)
    write_json(folder / "modules.json", modules)


def typed(name: str) -> Change:
    """Return a change of the last module's type."""
    return lambda folder: change_modules(folder, lambda modules: modules[-1].update(type=name))


def dense(**fields: Any) -> Change:  # noqa: ANN401
    """Return a change that puts a Dense module with such a configuration in."""
    return lambda folder: add_modules(folder, **with_dense("Tanh", 5, **fields))


def modules(*kinds: str) -> Change:
    """Return a change to such modules."""
    return lambda folder: add_modules(folder, **with_dense("Tanh", 5, *kinds))


def pooled(*modes: str) -> Change:
    """Return a change to such a pooling."""
    return lambda folder: add_modules(folder, pooling=CLS | {"pooling_mode": list(modes)})


def write_normalize(folder: Path, **fields: str) -> None:
    """Write the configuration of the Normalize module, as later versions do."""
    (folder / "2_Normalize").mkdir()
    write_json(folder / "2_Normalize" / "config.json", fields)


TYPE = "sentence_transformers.models"
SUMMED = MEAN | {"pooling_mode_max_tokens": True}
REFUSED: list[tuple[str, Change, type[TaskError], str]] = [
    ("other module", typed(f"{TYPE}.CNN"), KindUnsupported, "CNN is not computed here"),
    ("own code", typed("custom_st.Normalize"), KindUnsupported, "not one of the library's own"),
    ("order", modules("Transformer", "Pooling", "Normalize", "Dense"), KindUnsupported, "order"),
    ("twice", modules("Transformer", "Pooling", "Dense", "Dense"), KindUnsupported, "order"),
    ("no pooling", modules("Transformer", "Normalize"), KindUnsupported, "another order"),
    ("max", pooled("max"), KindUnsupported, "pooling max is not computed"),
    ("two", pooled("cls", "mean"), KindUnsupported, "pooling cls and mean"),
    ("old two", lambda f: add_modules(f, pooling=SUMMED), KindUnsupported, "max and mean"),
    ("residual", dense(use_residual=True), KindUnsupported, "Dense with a residual"),
    ("relu", dense(activation_function="torch.nn.ReLU"), KindUnsupported, "torch.nn.ReLU"),
    ("own tanh", dense(activation_function="mine.Tanh"), KindUnsupported, "mine.Tanh"),
    ("tokens", dense(module_input_name="token_embeddings"), KindUnsupported, "pooled vector"),
    ("too wide", dense(out_features=20_000), BadCheckpoint, "out_features"),
    ("other size", dense(bias=True, out_features=6), BadCheckpoint, "expected"),
    ("no list", lambda f: write_json(f / "modules.json", {}), BadCheckpoint, "no JSON array"),
    ("no form", lambda f: write_json(f / "modules.json", [1]), BadCheckpoint, "modules.json"),
    (
        "task",
        lambda f: add_modules(f, sentence_bert_config={"transformer_task": "text-generation"}),
        KindUnsupported,
        "gives no tokens",
    ),
    (
        "escape",
        lambda f: change_modules(f, lambda found: found[1].update(path="../model/1_Pooling")),
        PathEscape,
        "plain file name",
    ),
    ("gone", lambda f: shutil.rmtree(f / "1_Pooling"), ArtifactMissing, "1_Pooling"),
    (
        "missing key",
        lambda f: add_modules(f, **with_dense("Tanh", 5) | {"tensors": {}}),
        KeyMissing,
        "linear.weight",
    ),
    (
        "other width",
        lambda f: add_modules(
            f, ALL, dense=dense_config("Tanh", 8, 5), tensors=dense_tensors(8, 5)
        ),
        WrongBackbone,
        "reads 8 features",
    ),
    (
        "tokens of length 1",
        lambda f: write_normalize(f, module_input_name="token_embeddings"),
        KindUnsupported,
        "pooled vector",
    ),
]


@pytest.mark.parametrize(
    ("change", "error", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_not_computed_here_is_refused_with_the_reason(
    change: Change, error: type[TaskError], says: str, folder: Path, backbone: BackboneTensors
) -> None:
    change(folder)

    with pytest.raises(error, match=says):
        imported(folder, backbone)


def test_a_link_out_of_the_folder_is_not_followed(
    folder: Path, backbone: BackboneTensors, tmp_path: Path
) -> None:
    (folder / "1_Pooling").rename(tmp_path / "elsewhere")
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PathEscape, match="through a link"):
        imported(folder, backbone)


def test_a_pickled_dense_layer_is_read_without_running_it(
    folder: Path, backbone: BackboneTensors
) -> None:
    add_modules(folder, **with_dense("Identity", 5))
    (folder / "2_Dense" / "model.safetensors").unlink()
    tensors = {name: torch.from_numpy(v) for name, v in dense_tensors(HIDDEN, 5).items()}
    torch.save(tensors, folder / "2_Dense" / "pytorch_model.bin")

    found = imported(folder, backbone)

    assert found.level.head_weight is not None
    assert np.array_equal(found.level.head_weight, dense_tensors(HIDDEN, 5)["linear.weight"])
    assert {"2_Dense/linear.weight", "2_Dense/linear.bias"} <= found.imported.used_keys
