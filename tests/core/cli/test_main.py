"""The command line: quick, quiet about tracebacks, and clear about what is wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cldistill.cli import main as cli
from cldistill.cli import run as cli_run
from cldistill.component import Needs, Settings, base_model, loss_term
from cldistill.errors import CheckpointError, ManifestError
from cldistill.plugins import PluginFailure, PluginSet
from cldistill.records import BaseDescription
from cldistill.testing import plugin_environment
from cldistill.testing.pictures import write_pictures
from cldistill.testing.runs import tiny_manifest
from cldistill_plugins.inspection import inspect as cli_files
from cldistill_plugins.schema import installed
from cldistill_plugins.schema.json_schema import manifest_schema

MEASURED = """
import json, sys
from cldistill.cli.main import main
sys.argv = ["cldistill", *sys.argv[1:]]
code = 0
try:
    main()
except SystemExit as error:
    code = error.code or 0
print(json.dumps({"code": code, "packages": sorted({name.partition(".")[0] for name in sys.modules})}), file=sys.stderr)
"""
SLOW_PACKAGES = {"torch", "numpy", "PIL", "safetensors", "diffusers", "transformers", "accelerate", "peft", "open_clip"}
"""Whose import costs a quick command its second; `examples/benchmark_startup.py` measures the seconds."""
VOLUME = ("CLDISTILL_QUIET", "CLDISTILL_VERBOSE", "DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")


def measured(*arguments: str) -> dict[str, Any]:
    """Run the command line in a fresh interpreter; return its exit code, text, and which slow packages it loaded."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=False)
    *errors, last = done.stderr.splitlines()
    end = json.loads(last)
    loaded = SLOW_PACKAGES.intersection(end["packages"])
    return {"code": end["code"], "loaded": loaded, "stdout": done.stdout, "stderr": "\n".join(errors)}


def said(*arguments: str) -> dict[str, Any]:
    """Run the command line in this process, which saves the second of a fresh interpreter; return exit code and text."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["cldistill", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return {"code": end.value.code or 0, "stdout": out.getvalue(), "stderr": err.getvalue().rstrip("\n")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    (
        "--help", "run --help", "check one-effect --no-files", "check collectionlora-50 --no-files",
        "plan collectionlora-50 --no-files", "plugins", "schema",
    ),
)  # fmt: skip
def test_quick_commands_load_no_slow_package(words: str) -> None:
    found = measured(*words.split())
    assert (found["code"], found["loaded"]) == (0, set()), found["stderr"]


def test_help_lists_the_commands() -> None:
    text = CliRunner().invoke(cli.app, ["--help"]).output
    for command in ("run", "check", "plan", "plugins", "inspect", "generate", "schema"):
        assert f" {command} " in text


def test_what_a_terminal_cannot_write_is_written_out(tmp_path: Path) -> None:
    path = tmp_path / "水\udcff"
    (path / "source").mkdir(parents=True)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "cldistill", "init", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and r"\u6c34\udcff" in done.stderr and "Traceback" not in done.stderr


def test_a_package_that_is_no_plugin_is_told() -> None:
    found = said("inspect", "package:os/x")
    assert found["code"] == 2
    assert "No module named 'os' that registered plugins of cldistill" in found["stderr"]


def test_a_user_error_is_one_message_and_exit_code_2() -> None:
    found = said("check", "one-efect")
    assert (found["code"], found["stdout"]) == (2, "")
    assert found["stderr"] == (
        "cldistill: one-efect: neither a manifest file nor a shipped recipe; did you mean 'one-effect'?"
    )


@pytest.mark.slow
def test_the_shipped_recipe_asks_for_the_users_files_alone() -> None:
    found = said("check", "collectionlora-50")
    assert found["code"] == 2
    lines = found["stderr"].splitlines()
    assert all("no such" in line for line in lines[:-1]), lines
    assert lines[-1].startswith("... and ")


@pytest.mark.slow
def test_a_full_check_of_a_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Any) -> None:
    """The built-in components, on files that are there: one effect whose teacher is the base."""
    manifest = {
        "extends": "one-effect",
        "name": "mine",
        "effects": [
            {"name": "manga", "prompt": "turn into manga", "teacher": {"use": "base"}, "pairs": "data/manga"},
        ],
    }
    (world.root / "mine.yaml").write_text(yaml.safe_dump(manifest))
    found = measured("check", "mine.yaml")
    assert (found["code"], "samples.images" in found["stderr"]) == (2, True)
    write_pictures(world.root / "data" / "held-out")
    found = measured("check", "mine.yaml")
    assert (found["code"], "torch" in found["loaded"]) == (0, False), found["stderr"]
    assert found["stdout"].startswith("mine: fits together. 1 effect, 4 losses")
    assert "3 items" in found["stdout"]
    assert "manga: 2 pairs by source/ and target/" in found["stdout"]
    found = said("check", "mine.yaml", "--set", "losses.ts-dmd.options.tau_maks=3")
    assert found["stderr"] == ("cldistill: --set: losses.1.options.tau_maks: unknown key (3); did you mean 'tau_max'?")


@pytest.mark.slow
def test_the_version_is_that_of_the_distribution() -> None:
    found = measured("--version")
    assert (found["code"], found["loaded"]) == (0, set())
    assert found["stdout"].startswith(f"cldistill {version('cldistill')} (Python 3")


def test_an_error_comes_with_its_traceback_where_somebody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VOLUME:
        monkeypatch.setenv(name, "")  # so that what the options set is taken back
        monkeypatch.delenv(name)
    plain, hushed = said("check", "one-efect"), said("-q", "check", "one-efect")
    assert hushed["stderr"] == plain["stderr"]
    loud = said("-v", "check", "one-efect")
    assert loud["code"] == 2
    assert "Traceback (most recent call last)" in loud["stderr"]
    assert loud["stderr"].splitlines()[-1].startswith("cldistill: one-efect: neither a manifest file")


@pytest.mark.slow
def test_a_quiet_run_says_where_its_collection_is_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLDISTILL_QUIET", "1")  # as -q sets it; taken back with the test
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_manifest(tmp_path, steps=2)))
    with plugin_environment({}):
        done = CliRunner().invoke(cli.app, ["run", str(tmp_path / "tiny.yaml"), "-q", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'out' / 'collection'}\n"
    assert "training is done after step 2" in (tmp_path / "out" / "run.log").read_text()


def test_completion_knows_commands_and_options_of_plugins() -> None:
    def complete(*words: str) -> list[str]:
        environment = {"_CLDISTILL_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("cldistill", *words))}
        environment["COMP_CWORD"] = str(len(words))
        return CliRunner().invoke(cli.app, [], prog_name="cldistill", env=environment).stdout.split()

    assert complete("in") == ["init", "inspect", "instructions"]
    assert complete("plan", "--de") == ["--device"]


@pytest.mark.slow
def test_plan_as_json() -> None:
    plan = json.loads(said("plan", "collectionlora-50", "--no-files", "--json")["stdout"])
    assert [adapter["modules"] for adapter in plan["adapters"]] == [840, 840]
    assert [cycle["forwards"] for cycle in plan["cycles"]] == [35.5, 30.5]


def test_plan_shows_a_manifest_that_loads_again(world: Any) -> None:
    text = said("plan", "one-effect", "--no-files", "--show")["stdout"]
    (world.root / "shown.yaml").write_text(text)
    assert said("plan", "shown.yaml", "--no-files", "--show")["stdout"] == text
    assert yaml.safe_load(text)["losses"][1]["options"]["tau_max"] == 750.0


# --- plugins


def test_plugins_as_json_lists_settings_and_owners() -> None:
    found = json.loads(said("plugins", "--json")["stdout"])
    components = {c["name"]: c for plugin in found["plugins"] for c in plugin["components"]}
    assert {plugin["distribution"] for plugin in found["plugins"]} >= {"cldistill"}
    settings = {row["name"]: row for row in components["ts-dmd"]["settings"]}
    assert (settings["tau_max"]["type"], settings["tau_max"]["default"]) == ("float", "750.0")
    assert components["ts-dmd"]["kind"] == "loss_term"


def test_defaults_are_cut_in_the_table_and_whole_in_json(world: Any, catalogue_of: Any) -> None:
    class Long(Settings):
        words: tuple[str, ...] = tuple(f"word-{index}" for index in range(20))

    component = loss_term("long", "", Long, lambda s: Needs(), lambda s, c: pytest.fail("built"))
    (row,) = installed.settings_rows(component)
    assert row["default"] == str(Long().words) and "word-19" in row["default"]


def test_plugins_shows_failures_with_their_cause(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = PluginFailure("odd", "odd-dist", "0.3", ImportError("No module named 'lpips'"))
    world.catalogue.plugins = PluginSet(world.catalogue.plugins.loaded, (failure,), ("left",))
    monkeypatch.setattr(installed, "load_catalogue", lambda: world.catalogue)
    installed.plugins()
    text = capsys.readouterr().out
    assert "failed plugin 'odd' of odd-dist 0.3: ImportError: No module named 'lpips'" in text
    assert "fakes (fake-plugins 1.0)" in text
    assert "ts, loss term: ts" in text
    assert "left out by CLDISTILL_DISABLE_PLUGINS: left" in text


# --- inspect


def test_inspect_describes_a_model_by_whichever_base_can(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldistill.catalogue.load_catalogue", lambda: world.catalogue)
    assert cli_files.describe_model("anything").hidden == 64


def test_inspect_says_why_no_base_can_describe_a_model(catalogue_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class ModelSettings(Settings):
        model: str

    def describe(settings: ModelSettings) -> Needs:
        raise OSError("no config.json")

    base = base_model("picky", "", ModelSettings, describe, lambda s, c: pytest.fail("built"))
    catalogue = catalogue_of(base)
    catalogue._found = {key: value for key, value in catalogue._found.items() if key[1] == "picky"}
    monkeypatch.setattr("cldistill.catalogue.load_catalogue", lambda: catalogue)
    with pytest.raises(
        ManifestError, match=r"--base x: no installed base model can describe it \(picky: no config.json\)"
    ):
        cli_files.describe_model("x")


@pytest.mark.slow
def test_inspect_refuses_what_is_no_adapter(tmp_path: Path) -> None:
    found = measured("inspect", str(tmp_path / "none.safetensors"))
    assert found["code"] == 2
    assert found["stderr"].startswith("cldistill: ")
    assert found["loaded"] == set()


# --- run


def test_a_fresh_run_sets_the_old_one_aside(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for expected in ("out.1", "out.2"):
        (folder / "checkpoints").mkdir(parents=True)
        cli_run.set_aside(folder)
        assert (tmp_path / expected / "checkpoints").is_dir()
        assert not folder.exists()
    cli_run.set_aside(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.1", "out.2"]


def test_the_folder_that_one_is_in_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    (tmp_path / "out/deeper").mkdir()
    for inside, folder in (("out", Path()), ("out/deeper", tmp_path / "out"), ("out/deeper", Path(".."))):
        monkeypatch.chdir(tmp_path / inside)
        with pytest.raises(CheckpointError, match="--fresh would rename the folder that you are in"):
            cli_run.set_aside(folder)
    assert (tmp_path / "out/checkpoints").is_dir()


def test_other_ranks_leave_setting_aside_to_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    cli_run.set_aside(tmp_path / "out")
    assert (tmp_path / "out/checkpoints").is_dir()


def test_the_command_that_resumes_is_quoted_for_a_shell() -> None:
    command = cli_run.resume_command("a b.yaml", Path("runs/x"), ["train.seed=7", "name=my run"])
    assert command == "cldistill run 'a b.yaml' --output runs/x --set train.seed=7 --set 'name=my run'"


# --- schema


def test_the_schema_knows_every_component_and_its_options(world: Any) -> None:
    schema = manifest_schema(world.catalogue)
    loss = schema["$defs"]["loss_term"]
    assert {choice["const"] for choice in loss["properties"]["use"]["anyOf"]} == {"bs", "ts", "fm", "score"}
    assert {"weight", "from_step", "until_step", "slot", "streams"} <= set(loss["properties"])
    case = next(case for case in loss["allOf"] if case["if"]["properties"]["use"]["const"] == "ts")
    assert set(case["then"]["properties"]["options"]["properties"]) == {"tau_max", "tau_min"}
    assert case["then"]["properties"]["options"]["additionalProperties"] is False
    assert schema["then"]["required"] == [
        "cldistill",
        "name",
        "base",
        "effects",
        "router",
        "prompts",
        "losses",
        "slots",
    ]
    assert schema["additionalProperties"] is False


def test_every_reference_of_the_schema_leads_somewhere(world: Any, catalogue_of: Any) -> None:
    class Inner(Settings):
        x: int = 0

    class Outer(Settings):
        inner: Inner = Inner()

    described = Needs(base=BaseDescription(1, {}, (), 1, 1, 1, 1))
    nested = base_model("nested", "", Outer, lambda s: described, lambda s, c: pytest.fail("built"))
    schema = manifest_schema(catalogue_of(nested))
    references = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                references.add(node["$ref"])
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(schema)
    assert references
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(schema["$defs"])


@pytest.mark.parametrize("rank", [True, False])
def test_a_rank_is_bound_to_its_launcher_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch, rank: bool) -> None:
    done: list[str] = []
    monkeypatch.setattr(cli, "leave_with_parent", lambda: done.append("bound"))
    monkeypatch.setattr(cli, "app", lambda: done.append("command"))
    if rank:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    else:
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    cli.main()
    assert done == ["bound", "command"][not rank :]
