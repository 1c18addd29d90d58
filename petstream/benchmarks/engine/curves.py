"""The cases of the curves: speed over tasks and queries of each, over tokens, over kinds.

One backbone, one thread. A case that lies on two curves is the same in both, and is run once.
"""

from petstream.benchmarks.engine.cases import (
    ALL_PETS,
    MINILM,
    MIXES,
    N32_8,
    NUM_TASKS,
    U4_8,
    U8_32,
    U64_128,
    Case,
    LengthMix,
    kind_case,
    lora_case,
)

TOKENS_TASKS = 64
"""The goals' number, a query each."""
KINDS_TASKS = 16


def curve_cases() -> list[Case]:
    """Return all of them: a quarter of an hour of passes on a slow core, and their set-up."""
    cases = (*cases_over_tasks(), *cases_over_tokens(), *cases_over_kinds())
    return list(dict.fromkeys(cases))


def cases_over_tasks() -> list[Case]:
    """Return 64 queries of 1 to 64 tasks, so 64 to one of each, and a query each of 256."""
    return [
        _case_of_tokens(N32_8) if tasks == TOKENS_TASKS else lora_case(N32_8, tasks, "seqs")
        for tasks in NUM_TASKS
    ]


def cases_over_tokens() -> list[Case]:
    """Return a query each of 64 tasks, shortest first."""
    return [_case_of_tokens(mix) for mix in reversed(MIXES)]


def cases_over_kinds() -> list[Case]:
    """Return each kind beside the bare backbone, a query each of 16 tasks, shortest first."""
    mixes = (U4_8, U8_32, U64_128)
    return [kind_case(MINILM, mix, KINDS_TASKS, pets) for pets in ALL_PETS for mix in mixes]


def _case_of_tokens(mix: LengthMix) -> Case:
    return lora_case(mix, TOKENS_TASKS, "seqs", "peft-padded")
