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
