"""The parent's side of the pipe: one child process per library, asked one at a time."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from petstream.benchmarks.engine.environments import ENVIRONMENTS, ROOT


class SystemFailed(Exception):
    """A system could not be built or run: which, and what it said."""


class ChildProcess:
    """A library's process."""

    def __init__(self, library: str, threads: int, logs: Path) -> None:
        self._library = library
        self._log_path = logs / f"{library}-{threads}.log"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(ENVIRONMENTS[library].python),
                    *("-m", "petstream.benchmarks.engine.child", library),
                ],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - as JSON knows it
        """Wait for the answer to a request.

        Raises:
            SystemFailed: If the child answers with an error or ends.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = b""
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        answer: dict[str, Any] = (
            json.loads(line) if line else {"error": f"ended: {self._last_words()}"}
        )
        if "error" in answer:
            named = fields.get("system", self._library)
            raise SystemFailed(f"{named} could not {do}: {answer['error']}")
        return answer

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """Let it end; one that has ended by itself is no error here."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # what was not written before it ended
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _last_words(self) -> str:
        return self._log_path.read_text(errors="replace").strip()[-500:]


class Children:
    """A process for each library and number of threads that was asked for."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: dict[tuple[str, int], ChildProcess] = {}

    def of(self, library: str, threads: int) -> ChildProcess:
        """Return a library's process; start it if it does not run."""
        key = (library, threads)
        if key not in self._started:
            self._started[key] = ChildProcess(library, threads, self._logs)
        return self._started[key]

    def drop_all(self) -> None:
        """Let every process forget what it built; one that ended is started anew when asked for."""
        for key, child in list(self._started.items()):
            if child.runs:
                child.ask("drop")
            else:
                child.close()
                del self._started[key]

    def __enter__(self) -> "Children":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._started.values():
            child.close()
