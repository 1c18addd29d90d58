"""The dense model of an artifact's level, and labelled rows as the level takes them."""

from pathlib import Path

from tasks.artifact import Artifact
from tasks.backbone_shape import backbone_digest, read_shape
from tasks.training.batches import EncodedRow, encode_rows, load_tokenizer
from tasks.training.errors import BadRows
from tasks.training.model import DenseModel, load_dense_model
from tasks.training.rows import LabelledRows


def level_model(artifact: Artifact, level: int, backbone: Path) -> DenseModel:
    """Load one level of an artifact over its backbone's Hugging Face folder.

    Raises:
        ArtifactError: If the level is not valid, or was trained on other backbone weights.
    """
    description = artifact.description
    weights = artifact.load_level(
        level, read_shape(backbone), backbone_digest=backbone_digest(backbone)
    )
    model = load_dense_model(backbone, description.num_outputs, description.level(level).pooling)
    model.load(weights)
    return model


def encode_for_level(
    artifact: Artifact, level: int, backbone: Path, rows: LabelledRows
) -> list[EncodedRow]:
    """Tokenise rows as the level takes them.

    Raises:
        BadRows: If the rows are of another kind than the task, or have a label it does not know.
    """
    description = artifact.description
    if rows.kind != description.kind or rows.takes_pair != description.takes_pair:
        pair = " of pairs" if description.takes_pair else ""
        raise BadRows(
            f"{rows.origin}: rows of kind {rows.kind} do not fit the task {description.name}, "
            f"which is {description.kind}{pair}"
        )
    tokenizer = load_tokenizer(backbone, description.level(level).max_tokens)
    return encode_rows(rows, description.labels, tokenizer)
