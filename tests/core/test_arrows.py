"""Who may import whom (CONTRIBUTING, "the arrows"): read from the source, and from a process that really imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cldistill
import cldistill_plugins
import cldistill_registry
from cldistill.catalogue import load_catalogue

CORE = Path(cldistill.__file__).parent
PLUGINS = Path(cldistill_plugins.__file__).parent
REGISTRY = Path(cldistill_registry.__file__).parent

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "markers"),
    ("precision", "random", "schedule", "storage", "weights"),
    ("progress", "records"),
    ("component", "protocols"),
    ("adapters", "data", "hookspecs"),
    ("plugins", "sampling", "training"),
    ("catalogue",),
    ("manifest",),
    ("collection", "prepare", "samples"),
    ("assemble",),
    ("runner",),
    ("cli",),
    ("__main__",),
)
"""The folders and top files of the core from the bottom up: each imports only what stands on a lower floor."""
TOP_FILES = 20
LINES = 10_000
TORCH_FREE = (
    "errors", "records", "protocols", "component", "markers", "hookspecs", "plugins", "catalogue", "weights", "manifest",
    "progress", "cli", "collection.index", "adapters.header", "adapters.alphas", "adapters.hub",
)  # fmt: skip
"""Modules, and packages with all that is in them, which load no torch: `check`, `plan` and ``--help`` answer at once."""
PUBLIC = (
    "errors", "records", "weights", "protocols", "component", "markers", "hookspecs", "catalogue", "schedule", "random",
    "precision", "prepare", "assemble", "samples", "runner", "data", "progress", "storage",
    "adapters.alphas", "adapters.files", "adapters.header", "adapters.hub", "adapters.inject", "adapters.keys",
    "adapters.save", "adapters.slots",
    "cli.launch", "cli.options", "cli.run",
    "collection.card", "collection.collection", "collection.index",
    "manifest.check", "manifest.checked", "manifest.files", "manifest.load", "manifest.messages", "manifest.models",
    "manifest.prompts", "manifest.resolved", "manifest.rules", "manifest.yaml",
    "sampling.image_generator", "sampling.targets",
    "training.checkpoint", "training.metrics_log", "training.optim", "training.run", "training.term_context",
)  # fmt: skip
"""Modules of the core, and whole packages, that a plugin may import; the others are free to change."""


@dataclass(frozen=True)
class Import:
    """One imported module, or one name of a module."""

    file: Path
    line: int
    module: str
    name: str | None
    only_types: bool
    """Under ``TYPE_CHECKING``: never executed."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.module}" + (f".{self.name}" if self.name else "")

    @property
    def targets(self) -> tuple[str, ...]:
        """``from a import b`` may mean the module ``a`` or the module ``a.b``."""
        return (self.module,) if self.name is None else (self.module, f"{self.module}.{self.name}")

    def reaches(self, prefix: str) -> bool:
        """Whether this imports ``prefix`` or something inside it."""
        return any(target == prefix or target.startswith(f"{prefix}.") for target in self.targets)


@cache
def imports(file: Path) -> tuple[Import, ...]:
    """Read a file's imports, once for all tests."""
    return tuple(_walk(ast.parse(file.read_text(encoding="utf-8")), file, only_types=False))


def _walk(node: ast.AST, file: Path, only_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(file, child.lineno, alias.name, None, only_types)
        elif isinstance(child, ast.ImportFrom):
            module = _absolute(file, child.level, child.module or "")
            for alias in child.names:
                yield Import(file, child.lineno, module, alias.name, only_types)
        else:
            yield from _walk(child, file, only_types or _type_checking(child))


def _absolute(file: Path, level: int, module: str) -> str:
    """Return the full name of the module that ``from ..module import x`` means in ``file``."""
    if level == 0:
        return module
    top = next(folder for folder in (CORE, PLUGINS, REGISTRY) if folder in file.parents)
    package = file.relative_to(top.parent).parent.parts
    return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def core_files() -> list[Path]:
    """Return the files of the core without its testing kit."""
    return [file for file in sources(CORE) if CORE / "testing" not in file.parents and file != CORE / "__init__.py"]


def room(file: Path) -> str:
    """Return the folder of the core in which a file lies, or its own name at the top."""
    return file.relative_to(CORE).with_suffix("").parts[0]


def everything() -> list[Import]:
    return [found for folder in (CORE, PLUGINS, REGISTRY) for file in sources(folder) for found in imports(file)]


def allow(found: list[Import]) -> None:
    assert not found, "forbidden imports:\n" + "\n".join(map(str, found))


def test_the_walker_sees_lazy_and_type_only_imports(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import a.b\nif TYPE_CHECKING:\n    import c\ndef f():\n    from d import e\n")
    assert [(i.module, i.name, i.only_types) for i in imports(file)] == [
        ("a.b", None, False), ("c", None, True), ("d", "e", False),
    ]  # fmt: skip


def test_the_walker_resolves_relative_imports() -> None:
    file = PLUGINS / "mine" / "plugin.py"
    assert _absolute(file, 1, "maths") == "cldistill_plugins.mine.maths"
    assert _absolute(file, 2, "yours.maths") == "cldistill_plugins.yours.maths"
    assert _absolute(file, 1, "") == "cldistill_plugins.mine"


@pytest.mark.slow
def test_the_core_names_no_plugin() -> None:
    allow([found for file in sources(CORE) for found in imports(file) if found.reaches("cldistill_plugins")])


@pytest.mark.slow
def test_the_core_names_no_part_of_a_plugin() -> None:
    # Parts whose names are everyday words ("base", "collection") say nothing when they stand in a source.
    names = {entry.component.name for entry in load_catalogue()}
    telling = {name for name in names if "-" in name} | {"pdsr", "aop", "incremental"}
    assert telling <= names
    found = [
        f"{file}:{node.lineno}: {node.value!r}"
        for file in sources(CORE)
        if CORE / "testing" not in file.parents
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in telling
    ]
    assert not found, "the core asks for a part by its name:\n" + "\n".join(found)


@pytest.mark.slow
def test_a_plugin_uses_another_through_its_api_alone_and_never_in_a_circle() -> None:
    forbidden: list[Import] = []
    uses: dict[str, set[str]] = {}
    for folder in (entry for entry in PLUGINS.iterdir() if entry.is_dir()):
        own = f"cldistill_plugins.{folder.name}"
        for found in (found for file in sources(folder) for found in imports(file)):
            if not found.reaches("cldistill_plugins") or found.reaches(own):
                continue
            other = found.module.split(".")[1] if found.module != "cldistill_plugins" else str(found.name)
            uses.setdefault(folder.name, set()).add(other)
            if not found.reaches(f"cldistill_plugins.{other}.api"):
                forbidden.append(found)
    allow(forbidden)
    TopologicalSorter(uses).prepare()  # CycleError names the circle


@pytest.mark.slow
def test_plugins_import_only_public_names_of_the_engine() -> None:
    def private(found: Import) -> bool:
        hidden = any(part.startswith("_") for target in found.targets for part in target.split("."))
        return hidden or not any(found.reaches(f"cldistill.{name}") for name in PUBLIC)

    ours = (found for file in sources(PLUGINS) for found in imports(file) if found.module.split(".")[0] == "cldistill")
    allow([found for found in ours if private(found) and not found.only_types])


def test_folders_import_downwards() -> None:
    height = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert {room(file) for file in core_files()} <= set(height), "a new folder or top file needs its floor"
    upwards = []
    for file in core_files():
        for found in imports(file):
            target = found.module.split(".")[1:2] or [str(found.name)]
            inside = found.reaches("cldistill") and target[0] in height and target[0] != room(file)
            if inside and not found.only_types and height[target[0]] >= height[room(file)]:
                upwards.append(found)
    allow(upwards)


def test_no_circle_of_files() -> None:
    files = {".".join(("cldistill", *file.relative_to(CORE).with_suffix("").parts)): file for file in core_files()}
    graph = {
        name: {target for found in imports(file) if not found.only_types for target in found.targets if target in files}
        for name, file in files.items()
    }
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_core_stays_small() -> None:
    assert len([file for file in core_files() if file.parent == CORE]) <= TOP_FILES
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in core_files()) <= LINES


@pytest.mark.parametrize("module", ["step", "train", "term_context", "optim"])
def test_the_loop_knows_no_manifest(module: str) -> None:
    forbidden = ("pluggy", "pydantic", "yaml", "cldistill.catalogue", "cldistill.plugins", "cldistill.manifest")
    file = CORE / "training" / f"{module}.py"
    allow([found for found in imports(file) if any(map(found.reaches, forbidden)) and not found.only_types])


@pytest.mark.slow
def test_only_tests_import_the_testing_kit() -> None:
    kit = CORE / "testing"
    allow([found for found in everything() if kit not in found.file.parents and found.reaches("cldistill.testing")])


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter holds after running ``code``."""
    heavy = "{'torch', 'diffusers', 'transformers', 'accelerate', 'peft', 'numpy'}"
    script = f"{code}\nimport sys\nprint(' '.join(sorted({heavy} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.slow
def test_torch_free_modules_load_no_torch() -> None:
    modules = [
        ".".join(("cldistill", *file.relative_to(CORE).with_suffix("").parts)).removesuffix(".__init__")
        for file in core_files()
        for name in TORCH_FREE
        if file.relative_to(CORE).with_suffix("").parts[: len(name.split("."))] == tuple(name.split("."))
    ]
    assert len(modules) > 30
    assert loaded_by("\n".join(f"import {name}" for name in modules)) == set()


@pytest.mark.slow
def test_discovering_the_built_in_plugins_loads_no_torch() -> None:
    assert loaded_by("from cldistill.plugins import discover; assert discover().loaded") == set()
