"""One library's systems, in a process and an environment of its own.

    python -m petstream.benchmarks.engine.child LIBRARY

Reads one JSON request a line and answers each with one line. It works only between a request and
its answer, and is asked one at a time, so that what it measures is alone on the cores.
"""

import gc
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from petstream.benchmarks.engine.system import Request, System
from tasks.process_tuning import tune_process


class Child:
    """The systems that were built and not dropped, by name."""

    def __init__(self, library: str) -> None:
        tune_process()
        self._module = importlib.import_module(f"petstream.benchmarks.engine.systems.{library}")
        self._systems: dict[str, System] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked: build, logits, time, or drop one or all."""
        name = request.pop("do")
        if name == "build":
            return self._build(request)
        if name == "drop":
            for system in [request["system"]] if request else list(self._systems):
                del self._systems[system]
            gc.collect()
            return {}
        run = self._systems[request["system"]].run
        if name == "logits":
            logits = run()
            return {"logits": None if logits is None else logits.tolist()}
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        run()
        return {
            "cpu_s": time.process_time() - started_cpu_s,
            "wall_s": time.perf_counter() - started_s,
        }

    def _build(self, fields: dict[str, Any]) -> dict[str, Any]:
        paths = {name: Path(fields.pop(name)) for name in ("weights", "rows")}
        request = Request(**fields | paths | {"kinds": tuple(fields["kinds"])})
        system: System = self._module.build(request)
        self._systems[request.system] = system
        return {"library": system.library, "bytes_per_task": system.bytes_per_task}


def serve(library: str, requests: TextIO, answers: TextIO) -> None:
    """Answer every request; an error is an answer too."""
    child = Child(library)
    for line in requests:
        try:
            answer = child.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - the parent says which system failed, and how
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Libraries print; only answers may go where the parent reads.
    answers_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin, answers_to)
