"""A BERT of any dimensions with random weights, as a Hugging Face folder."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from petstream.benchmarks.engine.cases import Shape
from tasks.pets.random_weights import random_floats
from workers.backbone_config import CONFIG_FILE, read_config
from workers.backbone_folder import WEIGHTS_FILE, expected_tensors


def write_random_backbone(shape: Shape, folder: Path) -> None:
    """Write config and weights; each weight's spread keeps activations at their size."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": shape.vocabulary,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    rng = np.random.default_rng(3)
    tensors = {}
    for name, size in expected_tensors(read_config(folder)).items():
        is_gain = name.endswith("LayerNorm.weight")
        spread = 0.05 if len(size) == 1 else 1 / size[1] ** 0.5
        tensors[name] = random_floats(rng, spread, *size, centre=float(is_gain))
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
