"""PEFT's kinds that tasks cannot have, each with the reason."""

from tasks.errors import KindUnsupported
from tasks.importers.peft.config import FILE, PeftConfig

SUPPORTED = (
    "LORA", "ADALORA", "VERA", "IA3", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "LN_TUNING",
    "BEFT", "SHIRA", "TRAINABLE_TOKENS",
)  # fmt: skip

_MULTIPLIES = "multiplies the weight itself, so that the shared product of all tasks cannot be used"
_WHOLE = (
    "changes every element of the weight, which needs a matrix of its own per task as large as the "
    "backbone's"
)
_REASONS = {
    "OFT": _MULTIPLIES,
    "BOFT": _MULTIPLIES,
    "HRA": _MULTIPLIES,
    "ROAD": "rotates pairs of outputs, an operator that the packed engine does not have",
    "LOHA": _WHOLE,
    "LOKR": _WHOLE,
    "FOURIERFT": _WHOLE,
    "WAVEFT": _WHOLE,
    "C3A": _WHOLE,
    "HIRA": _WHOLE,
    "RANDLORA": _WHOLE,
    "MULTITASK_PROMPT_TUNING": "makes its prompt anew for each of several tasks",
    "ADAPTION_PROMPT": "is for decoders",
    "POLY": "mixes several adapters by task within one checkpoint",
    "XLORA": "mixes several adapters token by token",
}
_VARIANTS = {
    "layer_replication": "runs layers several times, which the shared pass does not",
    "target_parameters": "trains parameters that are no layer's weight",
    "use_qalora": "pools the input in groups before the product",
    "use_bdlora": "cuts the product into blocks of several devices",
    "alora_invocation_tokens": "changes only the tokens behind an invocation, not the row",
    "arrow_config": "routes among several adapters token by token",
    "kasa_config": "changes the backbone's own weights before training",
    "monteclora_config": "samples its factors anew each time",
}
"""Fields of a LoRA's configuration, and why it is then none that is served."""
_ADVICE = "merge it (`merge_and_unload`), save the model and import that as a full fine-tune"
_TASKS = (None, "SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION")


def check_kind(config: PeftConfig) -> None:
    """Check that what the checkpoint holds is served here.

    Raises:
        KindUnsupported: With the reason.
    """
    if config.kind not in SUPPORTED:
        reason = _REASONS.get(config.kind, "is not known here")
        raise KindUnsupported(f"{FILE}: {config.kind[:50]} {reason}: {_ADVICE}")
    task = config.text("task_type")
    if task not in _TASKS:
        raise KindUnsupported(
            f"{FILE}: task_type {task[:50] if task else task!r} is not answered here: rows and "
            f"their tokens are classified or scored (SEQ_CLS, TOKEN_CLS)"
        )


def check_lora_variant(config: PeftConfig) -> None:
    """Refuse LoRAs that are not a product beside the published weights.

    Raises:
        KindUnsupported: With the reason.
    """
    start = config.raw("init_lora_weights")
    changes_weights = ("pissa", "olora", "corda", "loftq", "lora_ga")
    if isinstance(start, str) and start.lower().startswith(changes_weights):
        raise KindUnsupported(
            f"{FILE}: init_lora_weights {start!r} changed the backbone's own weights before "
            f"training: save it with path_initial_model_for_weight_conversion, which makes a "
            f"plain LoRA of it"
        )
    if config.has("fan_in_fan_out"):
        raise KindUnsupported(
            f"{FILE}: fan_in_fan_out is for transposed weights (Conv1D), which no backbone here "
            f"has: it was trained on another model"
        )
    for name, why in _VARIANTS.items():
        if config.has(name):
            raise KindUnsupported(f"{FILE}: {name} {why}")
