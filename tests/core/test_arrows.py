"""Who may import whom (CONTRIBUTING, "the arrows"): read from the source, and from a process that really imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import cldistill
import cldistill_plugins
import cldistill_registry
from cldistill.catalogue import load_catalogue

CORE = Path(cldistill.__file__).parent
PLUGINS = Path(cldistill_plugins.__file__).parent
REGISTRY = Path(cldistill_registry.__file__).parent

TORCH_FREE = (
    "errors", "records", "protocols", "component", "markers", "hookspecs", "plugins", "catalogue", "manifest_yaml",
    "manifest_problems", "manifest_edit", "manifest", "manifest_file", "checked", "validate", "validate_needs",
    "validate_files", "validate_options", "validate_prompts", "validate_streams", "plan", "plan_costs", "plan_print",
    "schema", "cli",
    "resolved", "progress",
    "add", "add_effects", "add_manifest", "add_paths", "add_plan", "collection_folder", "collection_edit",
)  # fmt: skip
LAYERS = ("errors", "records", "protocols", "component", "catalogue", "manifest", "assemble", "cli")
"""From the bottom up: a module may import, while it is loaded, only what stands before it."""
ENGINE_ONLY = (
    "assemble", "step", "train", "runner", "update", "optim", "prepare", "checkpoint", "catalogue", "plugins",
    "checked", "schema", "observers", "dataset", "encodings",
)  # fmt: skip
ENGINE_PREFIXES = ("cli", "manifest", "validate", "plan")


@dataclass(frozen=True)
class Import:
    """One imported module, or one name of a module."""

    file: Path
    line: int
    module: str
    name: str | None
    lazy: bool
    """Inside a function or under ``TYPE_CHECKING``: not executed when the module is loaded."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.module}" + (f".{self.name}" if self.name else "")

    @property
    def targets(self) -> tuple[str, ...]:
        """``from a import b`` may mean the module ``a`` or the module ``a.b``."""
        return (self.module,) if self.name is None else (self.module, f"{self.module}.{self.name}")

    def reaches(self, prefix: str) -> bool:
        """Whether this imports ``prefix`` or something inside it."""
        return any(target == prefix or target.startswith(f"{prefix}.") for target in self.targets)


def imports(file: Path) -> Iterator[Import]:
    yield from _walk(ast.parse(file.read_text(encoding="utf-8")), file, lazy=False)


def _walk(node: ast.AST, file: Path, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(file, child.lineno, alias.name, None, lazy)
        elif isinstance(child, ast.ImportFrom):
            module = _absolute(file, child.level, child.module or "")
            for alias in child.names:
                yield Import(file, child.lineno, module, alias.name, lazy)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _type_checking(child)
            yield from _walk(child, file, lazy or inside)


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


def everything() -> list[Import]:
    return [found for folder in (CORE, PLUGINS, REGISTRY) for file in sources(folder) for found in imports(file)]


def allow(found: list[Import]) -> None:
    assert not found, "forbidden imports:\n" + "\n".join(map(str, found))


def test_the_walker_sees_lazy_and_eager_imports(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import a.b\nif TYPE_CHECKING:\n    import c\ndef f():\n    from d import e\n")
    assert [(i.module, i.name, i.lazy) for i in imports(file)] == [
        ("a.b", None, False), ("c", None, True), ("d", "e", True),
    ]  # fmt: skip


def test_the_walker_resolves_relative_imports() -> None:
    file = PLUGINS / "mine" / "plugin.py"
    assert _absolute(file, 1, "maths") == "cldistill_plugins.mine.maths"
    assert _absolute(file, 2, "yours.maths") == "cldistill_plugins.yours.maths"
    assert _absolute(file, 1, "") == "cldistill_plugins.mine"


def test_the_core_names_no_plugin() -> None:
    allow([found for file in sources(CORE) for found in imports(file) if found.reaches("cldistill_plugins")])


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
    assert not found, "the core asks for a part by its name; give it a role:\n" + "\n".join(found)


def test_no_plugin_imports_another() -> None:
    forbidden = []
    for folder in (entry for entry in PLUGINS.iterdir() if entry.is_dir()):
        own = f"cldistill_plugins.{folder.name}"
        for found in (found for file in sources(folder) for found in imports(file)):
            inside = found.reaches("cldistill_plugins")
            if inside and not found.reaches(own):
                forbidden.append(found)
    allow(forbidden)


def test_plugins_import_only_public_names_of_the_engine() -> None:
    def private(found: Import) -> bool:
        parts = [part for target in found.targets for part in target.split(".")]
        module = found.module.removeprefix("cldistill").strip(".") or str(found.name)
        engine = module.split(".")[0]
        return (
            any(part.startswith("_") for part in parts)
            or engine in ENGINE_ONLY
            or any(engine == prefix or engine.startswith(f"{prefix}_") for prefix in ENGINE_PREFIXES)
        )

    ours = (found for file in sources(PLUGINS) for found in imports(file) if found.module.split(".")[0] == "cldistill")
    allow([found for found in ours if private(found)])


@pytest.mark.parametrize("module", ["step", "train"])
def test_the_loop_knows_no_manifest(module: str) -> None:
    forbidden = ("pluggy", "pydantic", "yaml", "cldistill.catalogue", "cldistill.plugins", "cldistill.manifest.models",
                 "cldistill.manifest.load", "cldistill.manifest.yaml", "cldistill.manifest.checked")  # fmt: skip
    allow([found for found in imports(CORE / f"{module}.py") if any(map(found.reaches, forbidden))])


def test_nothing_imports_the_command_line() -> None:
    def is_cli(module: str) -> bool:
        parts = module.split(".")
        return parts[0] == "cldistill" and len(parts) > 1 and (parts[1] == "cli" or parts[1].startswith("cli_"))

    def own(file: Path) -> bool:
        return file.parent == CORE and (file.stem.startswith("cli") or file.stem == "__main__")

    outside = [found for found in everything() if not own(found.file)]
    allow([found for found in outside if any(map(is_cli, found.targets))])


def test_only_tests_import_the_testing_kit() -> None:
    kit = CORE / "testing"
    allow([found for found in everything() if kit not in found.file.parents and found.reaches("cldistill.testing")])


def test_layers_import_downwards() -> None:
    forbidden = []
    for height, module in enumerate(LAYERS):
        above = [f"cldistill.{name}" for name in LAYERS[height + 1 :]]
        eager = [found for found in imports(CORE / f"{module}.py") if not found.lazy]
        forbidden += [found for found in eager if any(map(found.reaches, above))]
    allow(forbidden)


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter holds after running ``code``."""
    heavy = "{'torch', 'diffusers', 'transformers', 'accelerate', 'peft', 'numpy'}"
    script = f"{code}\nimport sys\nprint(' '.join(sorted({heavy} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_torch_free_modules_load_no_torch() -> None:
    assert loaded_by("\n".join(f"import cldistill.{name}" for name in TORCH_FREE)) == set()


def test_discovering_the_built_in_plugins_loads_no_torch() -> None:
    assert loaded_by("from cldistill.plugins import discover; assert discover().loaded") == set()
