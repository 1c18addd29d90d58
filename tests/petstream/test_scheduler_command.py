"""`petstream scheduler`: wrong use ends with 2 and a line that says what to do."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from petstream.commands import scheduler as command


@pytest.fixture(autouse=True)
def _no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No broker and no profile of the machine reach these tests."""
    monkeypatch.setenv("PETSTREAM_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "PETSTREAM_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policy", "greedy"], "no policy 'greedy'; there are packed, coordinated, fixed"),
        (["--levels", "small"], "--levels takes numbers such as 0,1"),
        (["--levels", "0,-1"], "--levels takes numbers such as 0,1"),
        (["--profile", "nowhere.json"], "run `petstream profile`"),
        (["--batch-rows", "0"], "--batch-rows"),
        (["--window-ms", "-1"], "--window-ms"),
        ([], "--bootstrap-servers"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], complaint: str) -> None:
    """Before anything is connected."""
    result = CliRunner().invoke(command.app, arguments)

    assert result.exit_code == 2
    assert complaint in result.stderr
