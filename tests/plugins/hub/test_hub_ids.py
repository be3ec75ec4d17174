"""``OWNER/NAME[@REVISION]`` wherever a collection or an adapter is named: fetched, pinned, cached, and offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cldistill.adapters.hub import local_path, pinned
from cldistill.errors import CollectionError
from cldistill.testing import picture
from cldistill.testing.runs import tiny_manifest

NAME = "somebody/two-effects"
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_collection_is_fetched_pinned_and_then_there_offline(
    cli: Any, hub: Any, tiny_run: Path, tmp_path: Path
) -> None:
    first = hub.add(NAME, files_of(tiny_run) | {"pickle.bin": b"no", "run.py": b"no"})
    done = cli("inspect", NAME, "--json", token=None)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"] == f"{NAME}@{first}/pytorch_lora_weights.safetensors"
    assert [effect["name"] for effect in found["effects"]] == ["invert", "soften"]
    fetched = {path for method, path in hub.asked if "/resolve/" in path}
    assert fetched and not any(path.endswith((".bin", ".py")) for path in fetched)
    second = hub.add(NAME, {"README.md": b"later"})
    hub.asked.clear()
    done = cli("inspect", f"{NAME}@{first}", "--json", **OFFLINE)
    assert done.returncode == 0 and json.loads(done.stdout)["file"].startswith(f"{NAME}@{first}/")
    assert hub.asked == []
    done = cli("inspect", f"{NAME}@main", "--json")
    assert json.loads(done.stdout)["file"].startswith(f"{NAME}@{second}/")
    picture(1, (24, 24)).save(tmp_path / "cat.png")
    words = ("-i", "cat.png", "--all", "--steps", 1, "--device", "cpu", "-o", "out")
    done = cli("generate", f"{NAME}@{first}", *words, **OFFLINE)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "cat--invert.png", "cat--soften.png", "contact-sheet.png",
    }  # fmt: skip


@pytest.mark.slow
def test_a_teacher_and_a_slot_from_the_hub_are_recorded_with_their_commit(
    cli: Any, hub: Any, tiny_run: Path, tmp_path: Path
) -> None:
    weights = (tiny_run / "pytorch_lora_weights.safetensors").read_bytes()
    commit = hub.add("somebody/lora", {"a.safetensors": weights, "b.safetensors": weights})
    data = tiny_manifest(tmp_path / "made", steps=1)
    file = {"use": "lora-file", "options": {"path": "somebody/lora@main/b.safetensors"}}
    data["effects"][0]["teacher"] = file
    data["slots"]["student"]["init"] = "somebody/lora@main/a.safetensors"
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(data))
    done = cli("run", "manifest.yaml", "--output", "out")
    assert done.returncode == 0, done.stderr
    for text in ("out/manifest.resolved.yaml", "out/collection/manifest.resolved.yaml"):
        resolved = yaml.safe_load((tmp_path / text).read_text())
        assert resolved["effects"][0]["teacher"]["options"]["path"] == f"somebody/lora@{commit}/b.safetensors"
        assert resolved["slots"]["student"]["init"] == f"somebody/lora@{commit}/a.safetensors"
    assert str(tmp_path / "hf") not in (tmp_path / "out/manifest.resolved.yaml").read_text()
    file["options"]["path"] = "somebody/lora@main"
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(data))
    done = cli("check", "manifest.yaml", **OFFLINE)
    assert done.returncode == 2 and "the folder holds several files (a.safetensors, b.safetensors)" in done.stderr


@pytest.mark.slow
def test_a_system_of_an_evaluation_is_a_collection_from_the_hub(
    cli: Any, hub: Any, tiny_run: Path, tmp_path: Path
) -> None:
    commit = hub.add(NAME, files_of(tiny_run))
    pictures = tmp_path / "held-out"
    pictures.mkdir()
    picture(1, (24, 24)).save(pictures / "a.png")
    systems = [{"name": "bare", "adapter": None}, {"name": "theirs", "adapter": f"{NAME}@main"}]
    evaluate = {"images": str(pictures), "metrics": [{"use": "likeness"}], "systems": systems}
    data = tiny_manifest(tmp_path / "made", steps=1, evaluate=evaluate)
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(data))
    for extra in ({}, OFFLINE):  # the second time with what was fetched the first time
        done = cli("eval", "manifest.yaml", "--output", "judged", **extra)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "judged/report.json").read_text())
        adapter = report["systems"][1]["adapters"]["adapter"]
        assert adapter.startswith(f"{NAME}@{commit} sha256:")
        assert len(report["values"]["theirs"]["invert"]["from_source"]) == 1


@pytest.mark.slow
def test_a_collection_from_the_hub_grows_in_a_folder_of_its_own(
    cli: Any, hub: Any, tiny_run: Path, tmp_path: Path
) -> None:
    commit = hub.add(NAME, files_of(tiny_run))
    weights = (tiny_run / "pytorch_lora_weights.safetensors").read_bytes()
    hub.add("somebody/glow", {"glow.safetensors": weights})
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture(1, (24, 24)).save(pictures / "a.png")
    done = cli("add", NAME, "somebody/glow@main", "--prompt", "make it glow", "--pictures", pictures, "--plan")
    assert done.returncode == 0, done.stderr
    assert "glow" in done.stdout and "Output: runs/two-effects-plus-1" in done.stdout
    assert commit and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_what_is_not_there_is_said_in_a_sentence(cli: Any, hub: Any, tiny_run: Path, tmp_path: Path) -> None:
    hub.add(NAME, files_of(tiny_run))
    hub.add("somebody/secret", files_of(tiny_run), private=True)
    for words, options, said in (
        (("somebody/nothing",), {}, "the hub shows no such repository"),
        (("somebody/secret",), {"token": None}, "if it is private log in"),
        ((f"{NAME}@v9",), {}, "has no revision 'v9'"),
        (("somebody/new",), OFFLINE, "is not in the cache of the hub, and cannot be fetched now"),
        ((f"{NAME}@main/none.safetensors",), {}, "has no 'none.safetensors'"),
    ):
        done = cli("inspect", *words, **options)
        assert done.returncode == 2 and said in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
    hub.asked.clear()
    (tmp_path / "runs").mkdir()
    done = cli("inspect", "runs/quikstart")  # a slip of the pen is told to nobody
    assert done.returncode == 2 and "no such adapter file" in done.stderr
    assert hub.asked == []


@pytest.mark.parametrize(
    "text", ["./a/b", "/a/b", "a/b/c", "~/a/b", "a/b.safetensors", "a/b.jsonl", "a b/c", "ab", "a/b@", "../b"]
)
def test_what_is_no_hub_id_stays_a_path(text: str, tmp_path: Path) -> None:
    assert local_path(text, tmp_path) == tmp_path / Path(text).expanduser() or text.startswith("~")


def test_what_exists_here_is_meant(tmp_path: Path) -> None:
    (tmp_path / "somebody/two-effects").mkdir(parents=True)
    assert local_path(NAME, tmp_path) == tmp_path / NAME
    (tmp_path / "somebody/x@main").mkdir()
    assert local_path("somebody/x@main", tmp_path) == tmp_path / "somebody/x@main"


def test_a_file_outside_of_a_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--a--b/snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b/refs").mkdir()
    (tmp_path / "models--a--b/refs/main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert local_path("a/b@main") == snapshot
    with pytest.raises(CollectionError, match=f"a/b@{commit} has no"):
        local_path("a/b@main/../../refs/main")


def test_a_path_of_the_cache_is_written_as_its_commit() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = Path("/cache/models--me--x.y/snapshots") / commit
    assert pinned(folder) == f"me/x.y@{commit}"
    assert pinned(folder / "sub/f.safetensors") == f"me/x.y@{commit}/sub/f.safetensors"
    assert pinned(Path("/runs/x/collection")) == "/runs/x/collection"
    assert pinned("slot:student") == "slot:student" and pinned(None) is None
