"""Shared fixtures: a tiny pipeline of the real classes, a run of two effects on it, and a little world of fake components.

The fakes are torch-free, as in real plugins; a manifest folder uses all of them.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import Field

from cldistill.catalogue import Catalogue
from cldistill.component import (
    AnyComponent,
    BuildContext,
    Forwards,
    LocalPath,
    Needs,
    Settings,
    base_model,
    loss_term,
    observer,
    prompt_isolator,
    stream_router,
    teacher_source,
)
from cldistill.manifest.check import validate
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.load import load_manifest
from cldistill.plugins import LoadedPlugin, Owner, PluginSet
from cldistill.records import GENERAL, BaseDescription, EffectInfo, Prompts

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARING = (
    ("tests/browser/",),  # a Chromium
    ("tests/plugins/evaluation/",),  # an import of what draws a report
    ("tests/plugins/incremental/add/",),  # a finished run
    (  # the `interpreter`
        "tests/examples/test_effectbench.py", "tests/plugins/teachers/test_workers.py", "tests/core/progress/test_stop.py",
        "tests/core/training/test_checkpoint.py", "tests/core/training/test_distributed.py",
    ),
)  # fmt: skip
"""Folders and files that share something which takes seconds to make."""


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a file, or what `SHARING` has together, to one worker, so that nothing is made twice; the longest come first.

    ``slow(20)`` says about how many seconds a test takes with what is made for it; ``slow`` alone counts as one.
    """
    root = Path(__file__).parents[1]
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        file = item.path.relative_to(root).as_posix()
        group = next((shared[0] for shared in SHARING if file.startswith(shared)), file)
        item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)
    slow = {name: sum(map(_seconds, found)) for name, found in groups.items()}
    items[:] = [item for name in sorted(groups, key=lambda name: -slow[name]) for item in groups[name]]


settled = 0


def pytest_runtest_setup() -> None:
    """Hide what is imported from the garbage collector, which would look through all of it several times a run."""
    global settled
    if len(sys.modules) > settled + 20:
        gc.collect()
        gc.freeze()
        settled = len(sys.modules)


def pytest_sessionfinish() -> None:
    """Let it see everything again: what lives at the end is told by some libraries as leaked."""
    gc.unfreeze()


def _seconds(item: pytest.Item) -> float:
    mark = item.get_closest_marker("slow")
    return 0.0 if mark is None else float(mark.args[0]) if mark.args else 1.0


class Started:
    """A command under way in a fork; what `subprocess.Popen` would be."""

    def __init__(self, log: Path, arguments: Sequence[str]) -> None:
        self.log = log
        self.arguments = arguments
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        path = Path(f"{self.log}.status")
        if self.returncode is None and path.is_file():
            self.returncode = int(path.read_text())
        return self.returncode

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end and return what it said."""
        while self.poll() is None:
            time.sleep(0.01)
        out, err = (Path(f"{self.log}.{ending}").read_text() for ending in ("out", "err"))
        return subprocess.CompletedProcess(self.arguments, self.poll() or 0, out, err)


class Interpreter:
    """Runs Python commands in processes of their own that have imported torch already: see `forkserver.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        command = [sys.executable, str(Path(__file__).with_name("forkserver.py"))]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "ready\n"

    def start(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None, folder: Path | None = None,
        seconds: int = 600,
    ) -> Started:  # fmt: skip
        """Start ``python ARGUMENTS``; it is killed after ``seconds``."""
        self.count += 1
        words, log = [str(word) for word in arguments], self.folder / str(self.count)
        request = {
            "arguments": words, "environment": dict(os.environ if environment is None else environment),
            "folder": str(folder or Path.cwd()), "log": str(log), "seconds": seconds,
        }  # fmt: skip
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Started(log, words)

    def run(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``python ARGUMENTS`` to its end."""
        return self.start(*arguments, **options).wait()


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Python for commands that must be processes of their own, without the seconds of importing torch."""
    made = Interpreter(tmp_path_factory.mktemp("commands"))
    try:
        yield made
    finally:
        assert made.server.stdin is not None
        made.server.stdin.close()
        made.server.wait()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete random Qwen-Image-Edit pipeline below a megabyte."""
    from cldistill.testing.tiny import tiny_pipeline

    return tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``darker/`` and ``mirror/`` with four pairs each, ``general/`` with four pictures, and ``general.jsonl``."""
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for folder in ("darker/source", "darker/target", "mirror/source", "mirror/target", "general"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        blocks = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        picture = np.kron(blocks, np.ones((16, 16, 1), dtype=np.uint8))
        for effect, after in (("darker", picture // 2), ("mirror", picture[:, ::-1])):
            Image.fromarray(picture).save(root / effect / "source" / f"{index}.png")
            Image.fromarray(np.ascontiguousarray(after)).save(root / effect / "target" / f"{index}.png")
        Image.fromarray(255 - picture).save(root / "general" / f"{index}.png")
    lines = [f'{{"image": "{index}.png", "instruction": "make it brighter"}}' for index in range(4)]
    (root / "general.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def tiny_manifest(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> Callable[..., Path]:
    """Write a manifest of the whole method at the smallest size; keyword arguments replace top-level parts."""

    def write(file: str = "manifest.yaml", **parts: Any) -> Path:
        pairs = {"use": "from-pairs", "options": {"steps": 3, "rank": 2, "lr": 1e-3}}
        manifest: dict[str, Any] = {
            "cldistill": 1,
            "name": "tiny",
            "base": {
                "use": "qwen-image-edit",
                "options": {
                    "model": str(tiny_model), "resolution": 64, "vl_resolution": 56, "dtype": "float32",
                    "guidance_scale": 1.0, "target_guidance_scale": 1.0,
                },
            },
            "effects": [
                {"name": "darker", "prompt": "make it darker", "teacher": pairs, "pairs": str(tiny_data / "darker")},
                {"name": "mirror", "prompt": "mirror it", "teacher": pairs, "pairs": str(tiny_data / "mirror")},
            ],
            "general": {"images": str(tiny_data / "general"), "instructions": str(tiny_data / "general.jsonl")},
            "router": {"use": "pdsr", "options": {"p_switch": 0.5, "mixed_until": 2}},
            "prompts": {"use": "aop"},
            "losses": [
                {"use": "bs-dmd", "streams": ["effect", "general"], "from_step": 2},
                {"use": "ts-dmd", "streams": ["effect"], "from_step": 2},
                {"use": "ta-fm", "streams": ["effect", "mixed"]},
                {"use": "fake-score"},
            ],
            "slots": {
                "student": {"rank": 2, "lr": 1e-3, "ema": 0.9},
                "critic": {"rank": 2, "lr": 1e-3, "updates": 2, "from_step": 2, "init": "slot:student", "reuse_sample": True},
            },
            "sampler": {"steps": 4, "shift": 3.0},
            "targets": {"from": "teacher", "steps": 3},
            "train": {"generator_steps": 6, "batch_size": 2, "checkpoint_every": 2, "seed": 1, "device": "cpu",
                      "gradient_checkpointing": False},
        }  # fmt: skip
        manifest.update(parts)
        path = tmp_path / file
        kept = {key: value for key, value in manifest.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture(autouse=True, scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is made for several tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test's cache to itself."""
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


BLOCK = {"attn.to_q": (64, 64), "attn.to_out.0": (64, 64), "mlp.net.2": (64, 256)}


class BaseSettings(Settings):
    model: LocalPath | None = None
    width: int = Field(64, ge=8)
    guidance: float = 5.0


class LossSettings(Settings):
    tau_max: float = Field(750.0, gt=0, le=1000)
    tau_min: float = Field(500.0, ge=0)


class RouterSettings(Settings):
    p_switch: float = Field(0.5, ge=0, le=1)
    mixed_until: int | None = 0
    """None: a mixed stream that never ends."""


class FileSettings(Settings):
    path: LocalPath
    scale: float = 1.0


class Nothing(Settings):
    pass


def describe_base(settings: BaseSettings) -> Needs:
    modules = {f"blocks.{index}.{name}": shape for index in range(2) for name, shape in BLOCK.items()}
    targets = tuple(name for name in modules if "attn" in name)
    return Needs(
        base=BaseDescription(
            parameters=10_000, modules=modules, targets=targets, latent_tokens=16, channels=64, hidden=64, layers=2,
            guidance_scale=settings.guidance, encoder_bytes=5_000,
        )
    )  # fmt: skip


def describe_router(settings: RouterSettings) -> Needs:
    shares = {"effect": settings.p_switch, GENERAL: 1 - settings.p_switch, "mixed": settings.mixed_until != 0}
    streams = frozenset(name for name, share in shares.items() if share)
    ends = {"mixed": settings.mixed_until} if settings.mixed_until else {}
    return Needs(streams=streams, general=settings.p_switch < 1, ends=ends)


def unbuildable(settings: Any, context: BuildContext) -> Any:
    raise AssertionError("check and plan must not build this")


class Isolator:
    def isolate(self, effect: EffectInfo) -> Prompts:
        return Prompts(f"trig-{effect.name} {effect.prompt}", effect.prompt, trigger=f"trig-{effect.name}")

    def general(self, instruction: str) -> Prompts:
        return Prompts(instruction, instruction)


def fake_components() -> tuple[AnyComponent, ...]:
    """Return one or more components of every kind, shaped like the built-in ones."""
    effect = frozenset({"effect"})
    bs = Forwards(rollout=True, graded=1, plain=1, teacher=1)
    ts = Forwards(graded=1, plain=1, teacher=1)
    critic = frozenset({"critic"})
    return (
        base_model("tiny", "a base", BaseSettings, describe_base, unbuildable),
        teacher_source(
            "file", "a file", FileSettings, lambda s: Needs(adapter=s.path, adapter_scale=s.scale), unbuildable
        ),
        teacher_source("trained", "a trainer", Nothing, lambda s: Needs(pairs=True, rank=4), unbuildable),
        teacher_source("bare", "the base", Nothing, lambda s: Needs(), unbuildable),
        stream_router("dual", "two streams", RouterSettings, describe_router, unbuildable),
        prompt_isolator("triggers", "triggers", Nothing, lambda s: Needs(), lambda s, c: Isolator()),
        loss_term("bs", "bs", Nothing, lambda s: Needs("student", critic, teacher=True, forwards=bs), unbuildable),
        loss_term(
            "ts", "ts", LossSettings,
            lambda s: Needs(
                "student", critic, effect, targets=True, teacher=True, forwards=ts, sampler_below=s.tau_max / 1000
            ),
            unbuildable,
        ),
        loss_term(
            "fm", "fm", Nothing, lambda s: Needs("student", targets=True, forwards=Forwards(graded=1)), unbuildable
        ),
        loss_term(
            "score", "critic", Nothing,
            lambda s: Needs("critic", forwards=Forwards(rollout=True, sample=1, graded=1)), unbuildable,
        ),
        observer("board", "a tracker", Nothing, lambda s: Needs(packages=("no_such_package_here",)), unbuildable),
    )  # fmt: skip


def make_catalogue(*components: AnyComponent) -> Catalogue:
    """Return a catalogue of the fake components and ``components``."""
    owner = Owner("fakes", "fake-plugins", "1.0")
    return Catalogue(PluginSet((LoadedPlugin(owner, (*fake_components(), *components)),)))


def valid_manifest() -> dict[str, Any]:
    """Return a manifest with nothing wrong in it."""
    return {
        "cldistill": 1,
        "name": "two-effects",
        "base": {"use": "tiny"},
        "effects": [
            {"name": "manga", "prompt": "turn into manga", "teacher": {"use": "bare"}, "pairs": "data/manga"},
            {"name": "gold", "prompt": "turn into gold", "teacher": {"use": "trained"}, "pairs": "data/gold"},
        ],
        "general": {"images": "data/general", "instructions": "data/general.jsonl"},
        "router": {"use": "dual", "options": {"p_switch": 0.5}},
        "prompts": {"use": "triggers"},
        "losses": [
            {"use": "bs"},
            {"use": "ts", "options": {"tau_max": 750}},
            {"use": "fm", "streams": ["effect"]},
            {"use": "score"},
        ],
        "slots": {"student": {"rank": 8, "lr": 1e-4, "ema": 0.999}, "critic": {"rank": 8, "updates": 5}},
        "sampler": {"steps": 8},
        "targets": {"from": "teacher", "steps": 40},
        "train": {"generator_steps": 100},
    }


@dataclass
class World:
    """A folder with data and a manifest, and the catalogue that it is checked with."""

    root: Path
    data: dict[str, Any]
    catalogue: Catalogue

    def write(self) -> Path:
        """Write the manifest as it now stands."""
        path = self.root / "manifest.yaml"
        path.write_text(yaml.safe_dump(self.data, sort_keys=False), encoding="utf-8")
        return path

    def check(self, *overrides: str, files: bool = True) -> CheckedManifest:
        """Write and validate the manifest."""
        name = self.write().name  # relative, as most people would type it
        return validate(load_manifest(name, overrides), self.catalogue, files=files)

    def line(self, text: str) -> int:
        """Return the line of the written manifest that holds ``text``."""
        lines = (self.root / "manifest.yaml").read_text(encoding="utf-8").splitlines()
        return next(number for number, line in enumerate(lines, start=1) if text in line)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which everything fits; tests break one thing each. The current folder is its root."""
    for effect in ("manga", "gold"):
        for side in ("source", "target"):
            folder = tmp_path / "data" / effect / side
            folder.mkdir(parents=True)
            for stem in ("a", "b"):
                Image.new("RGB", (8, 8)).save(folder / f"{stem}.png")
    (tmp_path / "data/general").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "data/general/cat.png")
    (tmp_path / "data/general.jsonl").write_text('{"image": "cat.png", "instruction": "make it darker"}\n')
    monkeypatch.chdir(tmp_path)
    return World(tmp_path, valid_manifest(), make_catalogue())


@pytest.fixture
def catalogue_of() -> Callable[..., Catalogue]:
    """Make a catalogue of the fakes and further components."""
    return make_catalogue
