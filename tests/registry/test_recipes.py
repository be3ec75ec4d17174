"""The shipped recipes, and what is refused when somebody changes one value of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cldistill.errors import ManifestError
from cldistill.manifest.check import check_manifest
from cldistill.manifest.load import recipes
from cldistill_plugins.effectbench.bank import bank_of
from cldistill_plugins.effectbench.bank.effects_file import write_effects_file

PHASES = (
    "train.generator_steps=40", "router.options.mixed_until=20", "losses.bs-dmd.from_step=20", "losses.ts-dmd.from_step=20",
    "losses.fake-score.from_step=20", "slots.critic.from_step=20", "slots.student.lr=1e-3",
)  # fmt: skip
"""The quickstart in 40 steps, the first 20 of them mixed: its own numbers may change."""


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_every_recipe_fits_together(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bank").mkdir()
    for size in (50, 54, 180):
        write_effects_file(tmp_path / "bank", bank_of(size))
    check_manifest(name, files=False)


def test_a_recipe_whose_bank_was_not_made_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match=r"effects-50\.yaml: cannot be read"):
        check_manifest("effectbench", files=False)


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("quickstart", ["losses.bs-dmd.streams=[effect]"], "losses: none trains the student on the stream 'general'"),
        ("quickstart", ["losses.bs-dmd.streams=[effect]", "losses.bs-dmd.until_step=21"],
         "losses: none trains the student on the stream 'general'"),
        ("quickstart", ["losses.ta-fm.until_step=0", "losses.ta-fm.from_step=0"], "losses.0.until_step: must be greater"),
        ("quickstart", ["sampler.steps=2"], "--set: sampler.steps: ts-dmd (losses.2) needs a step at a sigma below 0.75"),
        ("quickstart", ["losses.ts-dmd.options.tau_max=200"], ": sampler.steps: ts-dmd (losses.2) needs a step at"),
        ("one-effect", ["effects.0.teacher="], "write `teacher: {use: from-pairs}`, which trains one on its pairs"),
        ("one-effect", ["losses.0.options={sigma_min: 0.5, sigma_max: 0.5}"], "sigma_min must be below sigma_max"),
    ],
)  # fmt: skip
def test_what_would_fail_in_the_middle_of_a_run_is_refused(
    recipe: str, overrides: Sequence[str], expected: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        check_manifest(recipe, [*(PHASES if recipe == "quickstart" else ()), *overrides], files=False)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["losses.bs-dmd.streams=[effect, general, mixed]"],  # it begins where the mixed phase ends
        ["losses.bs-dmd.streams=null"],
        ["router.options.mixed_general=1.0", "losses.bs-dmd.streams=null"],
        ["router.options.p_switch=1.0", "losses.bs-dmd.streams=[effect]"],
        ["sampler.steps=3"],
        # all of the run is the mixed phase: effect and general stream never come
        ["router.options.mixed_until=40", "losses=[{use: ta-fm, streams: [mixed]}, {use: fake-score}]"],
    ],
)
def test_what_never_meets_the_problem_is_not(overrides: Sequence[str]) -> None:
    check_manifest("quickstart", [*PHASES, *overrides], files=False)
