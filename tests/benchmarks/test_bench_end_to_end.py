"""The bare engine of the benchmark gets the rows that the scheduler would give it."""

from pathlib import Path

from benchmarks.bench_end_to_end import token_ids
from scheduler.tokenisation import BackboneTokenizer
from tests.scheduler.stages import write_backbones


def test_each_text_is_cut_where_its_own_task_says(tmp_path: Path) -> None:
    """Not where the last task that was loaded says."""
    folder = write_backbones(tmp_path) / "minilm-l3"
    tokenizer = BackboneTokenizer(folder / "tokenizer.json")
    text = "alpha beta gamma bank card hello"

    found = token_ids(tokenizer, [text, text, text], [8, 4, 8])

    assert [len(ids) for ids in found] == [8, 4, 8]
    assert found[0].tolist() == found[2].tolist()
    assert found[0].tolist()[:3] == found[1].tolist()[:3]
