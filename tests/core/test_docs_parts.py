"""docs/parts: every page's code runs, its tables hold just the members of their types, and no name is unknown."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from cldistill import component, protocols, records, testing
from cldistill.component import BuildContext, Needs
from cldistill.plugins import HOOK_KINDS
from cldistill_plugins.diffusers_base import api as diffusers_base

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/parts").glob("*.md"))}
PROTOCOLS = {
    "base_model": ("protocols.BaseModel", "records.BaseDescription"),
    "loss_term": (
        "protocols.UpdateContext", "records.Batch", "records.Conditioning", "records.Item", "records.Rollout",
        "schedule.Schedule", "protocols.Keyed", "records.LossOutput", "component.Forwards",
    ),
    "stream_router": ("protocols.StreamRouter", "records.RouteRequest", "protocols.Keyed", "records.Route"),
    "prompt_isolator": ("protocols.PromptIsolator", "records.EffectInfo", "records.Prompts"),
    "teacher_source": (
        "protocols.TeacherSource", "protocols.TeacherRequest", "records.EffectInfo", "weights.AdapterState",
        "weights.LoraWeights", "weights.LokrWeights",
    ),
    "metric": (
        "protocols.MetricRequest", "records.Item", "protocols.Metric", "protocols.KnowsTruth", "protocols.KnowsStochastic",
        "records.MetricValues", "records.Column", "records.Ratio",
    ),
    "observer": ("hookspecs.RunHooks", "records.StepResult", "records.UpdateResult"),
}  # fmt: skip
"""What each page must explain, member by member."""
WORDS = {
    "alpha", "backbone", "check", "critic", "delta", "effect", "effects", "hash", "hashlib", "itself",
    "lora_A", "lora_B", "nan", "noise", "plan", "t", "rescaled", "sorted", "standard", "steps", "tensorboard", "v", "x",
    "x0", "sigma", "std", "None", "float", "str", "int", "bool", "Tensor", "Path", "Tensors", "Image", "Generator",
    "GuidanceMode", "eval", "run", "cldistill", "B", "L", "C", "D", "T", "hookimpl", "diffusers", "discriminator",
}  # fmt: skip
"""What is set as code and is no name of an interface."""


def sections(page: str) -> dict[str, set[str]]:
    """Return the types that a page has a section on, each with the first column of its table."""
    parts = re.findall(r"^### `cldistill\.([\w.]+)`\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL)
    return {name: set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)) for name, text in parts}


def load(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(f"cldistill.{module}"), attribute)
    assert isinstance(found, type)
    return found


def members(kind: type) -> set[str]:
    """Return fields, annotated attributes, properties and methods that a type itself has."""
    own = {name for name in vars(kind) if not name.startswith("_")} | set(inspect.get_annotations(kind))
    called = {"__call__"} if inspect.isfunction(vars(kind).get("__call__")) else set()
    return {name for name in own if not name.startswith("_")} | (called if not is_dataclass(kind) else set())


def test_every_kind_of_part_has_its_page_and_no_other() -> None:
    assert set(PAGES) == set(PROTOCOLS) == set(HOOK_KINDS.values()) - {"grouper", "instruction_maker"}
    for kind, page in PAGES.items():
        assert f"`check_{kind}` tests it" in page.replace("\n", " "), kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAGES)
def test_the_code_of_a_page_runs(kind: str, tmp_path: Path) -> None:
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", PAGES[kind], flags=re.MULTILINE | re.DOTALL)):
        file = tmp_path / f"{kind}_{number}.py"
        file.write_text(code, encoding="utf-8")
        found = runpy.run_path(str(file))
        assert f"check_{kind}(" in code and f"register_{kind}s" in found
        found["test_it_conforms"]()


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_names_every_member_of_its_types_and_no_other(kind: str) -> None:
    found = sections(PAGES[kind])
    assert set(found) == {*PROTOCOLS[kind], "component.Needs"}
    for name in PROTOCOLS[kind]:
        assert found[name] == members(load(name)), name
    assert found["component.Needs"] <= {field.name for field in fields(Needs)}


@pytest.mark.parametrize("kind", PAGES)
def test_methods_are_shown_with_all_their_parameters(kind: str) -> None:
    for name, text in re.findall(r"^### `cldistill\.([\w.]+)`\n(.*?)(?=^##|\Z)", PAGES[kind], re.MULTILINE | re.DOTALL):
        for member, shown in re.findall(r"^\| `(\w+)` \| `\((.*?)\) ->", text, flags=re.MULTILINE):
            method = vars(load(name)).get(member)
            if inspect.isfunction(method):
                wanted = [word for word in inspect.signature(method).parameters if word != "self"]
                assert re.findall(r"(?:^|, )\*?(\w+)", shown) == wanted, f"{name}.{member}"


def test_every_field_of_needs_is_on_the_page_of_the_kind_that_its_docstring_names() -> None:
    source = inspect.getsource(Needs)
    texts = dict(re.findall(r'^    (\w+): [^\n]+\n    """(.*?)"""', source, flags=re.MULTILINE | re.DOTALL))
    assert texts["slot"].startswith("Loss term: ")
    on_pages = {kind: sections(page)["component.Needs"] for kind, page in PAGES.items()}
    assert set().union(*on_pages.values()) == {field.name for field in fields(Needs)}
    for name, text in texts.items():
        for said in re.findall(r"(Base model|Loss term|Router|Teacher source|Metric): ", text):
            kind = {"Router": "stream_router"}.get(said, said.lower().replace(" ", "_"))
            assert name in on_pages[kind], f"{name} is missing on {kind}.md"


@pytest.mark.parametrize("kind", PAGES)
def test_no_name_on_a_page_is_unknown(kind: str) -> None:
    page = PAGES[kind]
    code = "".join(re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL))
    known = WORDS | {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)} | set(testing.__all__)
    known |= {field.name for field in (*fields(Needs), *fields(BuildContext))} | set(diffusers_base.__all__)
    known |= {*vars(records), *vars(component), *vars(protocols)}
    known |= {value for name, value in vars(records).items() if name.isupper() and isinstance(value, str)}
    for name in PROTOCOLS[kind]:
        own = [getattr(value, "fget", value) for value in vars(load(name)).values()]
        methods = [inspect.signature(value) for value in own if inspect.isfunction(value)]
        types = [*inspect.get_annotations(load(name)).values(), *(call.return_annotation for call in methods)]
        known |= {
            name.rpartition(".")[2],
            *members(load(name)),
            *(word for call in methods for word in call.parameters),
        }
        known |= {word for said in types for word in re.findall(r"\w+", str(said))}
    prose = re.sub(r"^```python\n.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", prose):
        if span.startswith("cldistill."):
            module, _, attribute = span.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(span), span
        elif re.fullmatch(r"\w+(\(.*\))?", span):
            assert span.partition("(")[0] in known, span


def test_the_links_of_the_pages_lead_somewhere_and_contributing_links_the_pages() -> None:
    for page in PAGES.values():
        for target in re.findall(r"\]\(([^)#]+)\)", page):
            assert (ROOT / "docs/parts" / target).exists(), target
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(docs/parts/(\w+)\.md\)", contributing)) == set(PAGES)
