"""An interpreter that has imported everything heavy, and forks itself for every command that it is asked to run.

A command is then a process of its own, as if it had been typed: own memory, environment, folder and signals, a real exit
status.  It lacks only the seconds of importing torch, diffusers and transformers.  Read by `conftest.py`, which starts it.

A request is a line of JSON: ``arguments`` (what stands behind ``python``), ``environment``, ``folder``, ``log`` (the path
that ``.out``, ``.err`` and at the end ``.status`` are added to) and ``seconds``, after which the command is killed.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

PRELOADED = (
    "accelerate",
    "altair",
    "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus",
    "cldistill.collection.collection",
    "cldistill.runner",
    "cldistill.testing",
    "cldistill.testing.tiny_plugin",
    "cldistill_plugins.evaluation.evaluate",
    "cldistill_plugins.qwen_image_edit.base",
    "numpy",
    "torch.distributed",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
)


def serve() -> None:
    """Fork for every line of standard input, until it ends."""
    for name in (*PRELOADED, *(plugin.module for plugin in entry_points(group="cldistill"))):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is imported stays shared with the forks
    print("ready", flush=True)
    for line in sys.stdin:
        if os.fork() == 0:
            _supervise(json.loads(line))
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass


def _supervise(request: dict[str, Any]) -> None:
    """Run the command in one more fork, and write its exit status when it has ended."""
    command = os.fork()
    if command == 0:
        _become(request)
    _, status = os.waitpid(command, 0)
    written = Path(f"{request['log']}.status")
    written.with_suffix(".new").write_text(str(os.waitstatus_to_exitcode(status)))
    written.with_suffix(".new").rename(written)
    os._exit(0)


def _become(request: dict[str, Any]) -> None:
    """Be the command: streams, environment, folder, path, and at last its code."""
    signal.alarm(request["seconds"])
    for descriptor, ending in ((1, "out"), (2, "err")):
        file = os.open(f"{request['log']}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    importlib.invalidate_caches()
    code = _run(request["arguments"])
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(arguments: list[str]) -> int:
    first, *rest = arguments
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(first).resolve().parent))
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve()
