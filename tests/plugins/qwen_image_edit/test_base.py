"""The base model against the stock pipeline that it is made of."""

from __future__ import annotations

import gc
import json
import shutil
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from cldistill.errors import DataError, OptionsError
from cldistill.protocols import BaseModel
from cldistill.sampling import samplers as sample
from cldistill.schedule import Schedule
from cldistill.testing.tiny import TEMPLATE, stock_areas, tiny_pipeline
from cldistill_plugins.diffusers_base import folder as module
from cldistill_plugins.qwen_image_edit.base import QwenImageEdit
from cldistill_plugins.qwen_image_edit.geometry import Geometry
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings


def fingerprint(folder: Path, settings: QwenImageEditSettings) -> str:
    return QwenImageEdit(settings.model_copy(update={"model": str(folder)})).fingerprint


PROMPT = "turn the picture into manga"


def picture(seed: int = 0, width: int = 90, height: int = 70) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


class Recorder(torch.nn.Module):
    """Stands in for the transformer and keeps what each call was given and gave."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[tuple[dict[str, Any], torch.Tensor]] = []
        inner.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, module: Any, args: Any, kwargs: dict[str, Any], output: tuple[torch.Tensor]) -> None:
        self.calls.append((kwargs, output[0]))


def stock(folder: Path, dtype: torch.dtype = torch.float32, **scheduler: Any) -> QwenImageEditPlusPipeline:
    pipeline = QwenImageEditPlusPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run_stock(
    pipeline: QwenImageEditPlusPipeline, pictures: list[Image.Image], size: tuple[int, int], **call: Any
) -> Any:
    with stock_areas():
        return pipeline(pictures, PROMPT, width=size[0], height=size[1], **({"true_cfg_scale": 1.0} | call)).images[0]


def difference(first: Image.Image, second: Image.Image) -> float:
    assert first.size == second.size
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).max()) / 255.0


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [[picture()], [picture(0, 60, 120), picture(1, 100, 50)]], ids=["one", "two"])
def test_predict_equals_the_stock_pipelines_call(
    base: QwenImageEdit, folder: Path, pictures: list[Image.Image]
) -> None:
    pipeline = stock(folder)
    recorder = Recorder(pipeline.transformer)
    source, prompt = base.encode_source(pictures), base.encode_prompt(PROMPT, pictures)
    rows, columns = source["shapes"][0].tolist()
    run_stock(pipeline, pictures, (columns * 16, rows * 16), num_inference_steps=3)
    for sigma, (given, output) in zip(Schedule(3, 3.0).sigmas(), recorder.calls, strict=True):
        length = base.latent_shape(source)[0]
        x = given["hidden_states"][:, :length]
        assert torch.allclose(given["hidden_states"][0, length:], source["latents"], atol=1e-5)
        assert torch.equal(given["encoder_hidden_states"][0], prompt["embeds"])
        assert torch.allclose(given["timestep"], sigma, atol=1e-7)
        v = base.predict(x, sigma[None], base.collate([source]), base.collate([prompt]))
        assert torch.allclose(v, output[:, :length], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(90, 70), (50, 110)])
def test_few_step_sample_equals_the_stock_picture(base: QwenImageEdit, folder: Path, size: tuple[int, int]) -> None:
    pictures = [picture(3, *size)]
    source = base.collate([base.encode_source(pictures)])
    prompt = base.collate([base.encode_prompt(PROMPT, pictures)])
    rows, columns = source["shapes"][0, 0].tolist()
    torch.manual_seed(7)
    pipeline, shape = stock(folder, stochastic_sampling=True), (columns * 16, rows * 16)
    theirs = run_stock(pipeline, pictures, shape, num_inference_steps=8)
    torch.manual_seed(7)
    latents = run_stock(pipeline, pictures, shape, num_inference_steps=8, output_type="latent")
    torch.manual_seed(7)
    # the stock pipeline draws its first noise as an unpacked latent, and steps draw packed ones
    first = torch.randn(1, 1, 16, rows * 2, columns * 2)
    packed = QwenImageEditPlusPipeline._pack_latents(first, 1, 16, rows * 2, columns * 2)
    with torch.no_grad():
        x0 = sample.few_step(
            sample.predictor(base, source, prompt),
            Schedule(8, 3.0),
            lambda k: torch.randn(packed.shape) if k else packed,
        )
    assert torch.allclose(x0[0], latents.float(), atol=1e-3)
    ours = base.decode(x0, source)[0]
    # A value between two of the 256 levels may be rounded either way; all others must be the same.
    assert difference(ours, theirs) <= 1 / 255 + 1e-6
    assert float(np.mean(np.asarray(ours) != np.asarray(theirs))) <= 1e-3


@pytest.mark.slow
def test_guided_euler_equals_the_stock_pipeline(base: QwenImageEdit, folder: Path) -> None:
    pictures = [picture(4)]
    source = base.collate([base.encode_source(pictures)])
    prompt, empty = (base.collate([base.encode_prompt(text, pictures)]) for text in (PROMPT, ""))
    noise = torch.randn(1, *base.latent_shape(base.encode_source(pictures)), generator=torch.Generator().manual_seed(1))
    rows, columns = source["shapes"][0, 0].tolist()
    theirs = run_stock(
        stock(folder), pictures, (columns * 16, rows * 16), num_inference_steps=5, true_cfg_scale=4.0,
        negative_prompt="", latents=noise,
    )  # fmt: skip
    predict = sample.guided(base, source, prompt, empty, base.target_guidance_scale, base.target_guidance_mode)
    with torch.no_grad():
        ours = base.decode(sample.euler(predict, Schedule(5, 3.0).sigmas(), noise), source)[0]
    assert difference(ours, theirs) <= 1e-3


def test_a_padded_batch_gives_what_single_items_give(base: QwenImageEdit) -> None:
    pictures = [[picture(1)], [picture(2)]]
    texts = ["darker", "turn the picture into a long and winding manga, please"]
    sources = [base.encode_source(item) for item in pictures]
    prompts = [base.encode_prompt(text, item) for text, item in zip(texts, pictures, strict=True)]
    x = torch.randn(2, *base.latent_shape(sources[0]), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.9])
    collated = base.collate(prompts)
    assert collated["mask"].sum(1).tolist() == [len(prompt["embeds"]) for prompt in prompts]
    with torch.no_grad():
        together = base.predict(x, sigma, base.collate(sources), collated)
        for index in range(2):
            single = base.collate([sources[index]]), base.collate([prompts[index]])
            alone = base.predict(x[index : index + 1], sigma[index : index + 1], *single)
            assert torch.allclose(together[index], alone[0], atol=1e-5)


def test_sources_of_different_shape_cannot_share_a_batch(base: QwenImageEdit) -> None:
    rows = [base.encode_source([picture(0, 120, 40)]), base.encode_source([picture(0, 40, 120)])]
    with pytest.raises(DataError, match="must have the same aspect and number of references"):
        base.collate(rows)
    with pytest.raises(DataError, match="number of references"):
        base.collate([rows[0], base.encode_source([picture(0, 120, 40), picture(1, 120, 40)])])


def test_the_batch_key_tells_orientation_and_references_apart(base: QwenImageEdit) -> None:
    wide, tall = picture(0, 120, 40), picture(0, 40, 120)
    shown = [[wide], [tall], [wide, wide], [tall, wide], [wide, tall]]
    encoded = [base.encode_source(pictures) for pictures in shown]
    assert base.latent_shape(encoded[0]) == base.latent_shape(encoded[1])
    keys = [base.batch_key(source) for source in encoded]
    assert len(set(keys)) == len(keys)
    assert keys[0] == base.batch_key(base.encode_source([picture(5, 120, 40)]))
    assert all(type(side) is int for key in keys for side in key)


def test_the_target_has_the_geometry_of_its_references(base: QwenImageEdit) -> None:
    references = [picture(0, 60, 60), picture(1, 120, 40)]
    source = base.encode_source(references)
    target = base.encode_target(picture(2, 33, 200), references)
    assert tuple(target.shape) == base.latent_shape(source)
    assert target.dtype == torch.float32
    height, width = (16 * value for value in source["shapes"][0].tolist())
    assert base.decode(target[None], base.collate([source]))[0].size == (width, height)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1000, 60), (60, 1000), (2000, 10), (1, 900), (3, 2), (1, 1)])
def test_a_picture_of_any_size_can_be_edited(base: QwenImageEdit, size: tuple[int, int]) -> None:
    shown = Image.new("RGB", size, "teal")
    source = base.encode_source([shown])
    assert tuple(base.encode_target(shown, [shown]).shape) == base.latent_shape(source)
    assert base.encode_prompt(PROMPT, [shown])["embeds"].isfinite().all()
    x0 = torch.zeros(1, *base.latent_shape(source))
    made = base.decode(x0, base.collate([source]))[0]
    assert min(made.size) >= 32 and (made.width > made.height) == (size[0] > size[1] and size != (3, 2))


@pytest.mark.parametrize("side", [56, 128, 384, 1024])
def test_sizes_are_the_stock_ones_wherever_those_are_sizes(side: int) -> None:
    random = np.random.default_rng(side)
    for width, height in random.integers(20, 3000, (200, 2)).tolist():
        stock_size = calculate_dimensions(side * side, width / height)
        ours = Geometry(side, side).vae_size(Image.new("L", (width, height)))
        if min(stock_size) >= 1:
            assert ours == tuple(map(int, stock_size[:2]))
        else:
            assert min(ours) == 32 and max(ours) <= 4 * side * side // 32


@pytest.mark.slow
def test_loading_prints_nothing_and_leaves_the_libraries_as_they_were(
    settings: QwenImageEditSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers_logging.enable_progress_bar()
    fresh = QwenImageEdit(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert fresh.backbone is not None
        fresh.load_encoders()
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    try:
        fresh.drop_encoders()
        fresh.load_encoders()
        assert not transformers_logging.is_progress_bar_enabled() and are_progress_bars_disabled()
    finally:
        transformers_logging.enable_progress_bar()


def test_encoding_draws_no_random_numbers(base: QwenImageEdit) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    base.encode_source([picture()])
    base.encode_prompt(PROMPT, [picture()])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_encoders_are_lazy_and_really_released(base: QwenImageEdit) -> None:
    encoders = base.encoders
    base.encode_source([picture()])
    assert base.tokenize("manga tone") and not encoders.text_encoder_loaded
    base.load_encoders()
    alive = weakref.ref(encoders.stock.text_encoder)
    first = base.encode_prompt(PROMPT, [picture()])["embeds"]
    base.drop_encoders()
    gc.collect()
    assert alive() is None and not encoders.text_encoder_loaded
    assert torch.equal(base.encode_prompt(PROMPT, [picture()])["embeds"], first)


def test_gradient_checkpointing_goes_through_the_given_function(base: QwenImageEdit) -> None:
    source = base.collate([base.encode_source([picture()])])
    prompt = base.collate([base.encode_prompt(PROMPT, [picture()])])
    x = torch.randn(1, *base.latent_shape({name: value[0] for name, value in source.items()}), requires_grad=True)
    plain = torch.autograd.grad(base.predict(x, torch.tensor([0.5]), source, prompt).square().sum(), x)[0]
    calls = []

    def run(function: Any, *args: Any) -> Any:
        calls.append(function)
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)

    base.enable_gradient_checkpointing(run)
    pinned = torch.autograd.grad(base.predict(x, torch.tensor([0.5]), source, prompt).square().sum(), x)[0]
    assert len(calls) == 2 and torch.allclose(plain, pinned, atol=1e-6)


def test_features_are_the_noised_tokens_after_a_block_and_leave_out_those_behind_it(base: QwenImageEdit) -> None:
    source = base.collate([base.encode_source([picture()])])
    prompt = base.collate([base.encode_prompt(PROMPT, [picture()])])
    x = torch.randn(1, *base.latent_shape({name: value[0] for name, value in source.items()}), requires_grad=True)
    given, (first, last) = (x, torch.tensor([0.5]), source, prompt), base.blocks
    backbone: Any = base.backbone
    blocks, ran = list(backbone.transformer_blocks), []
    handles = [
        block.register_forward_hook(lambda module, args, output: ran.append(output[1].detach())) for block in blocks
    ]
    base.predict(*given)
    for at, output in zip((first, last), list(ran), strict=True):
        ran.clear()
        features = base.features(*given, at)
        assert features.shape == (1, x.shape[1], base.blocks[at]) and torch.equal(features, output[:, : x.shape[1]])
        assert len(ran) == 1 + (at == last) and list(backbone.transformer_blocks) == blocks
    for handle in handles:
        handle.remove()
    plain = torch.autograd.grad(base.features(*given, first).square().sum(), x)[0]
    base.enable_gradient_checkpointing(
        lambda f, *args: torch.utils.checkpoint.checkpoint(f, *args, use_reentrant=False)
    )
    pinned = torch.autograd.grad(base.features(*given, first).square().sum(), x)[0]
    assert torch.allclose(plain, pinned, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_predicts_in_autocast_and_rounds_like_stock(settings: QwenImageEditSettings, folder: Path) -> None:
    base = QwenImageEdit(settings.model_copy(update={"dtype": "bfloat16"}))
    pipeline = stock(folder, torch.bfloat16)
    recorder = Recorder(pipeline.transformer)
    source = base.encode_source([picture()])
    rows, columns = source["shapes"][0].tolist()
    run_stock(pipeline, [picture()], (columns * 16, rows * 16), num_inference_steps=8)
    given, output = recorder.calls[1]
    length = rows * columns
    with torch.no_grad():
        v = base.predict(
            given["hidden_states"][:, :length].float(),
            Schedule(8, 3.0).sigmas()[1:2],
            base.collate([source]),
            base.collate([base.encode_prompt(PROMPT, [picture()])]),
        )
    assert base.timestep(Schedule(8, 3.0).sigmas()[1:2]).item() == given["timestep"].item()
    assert round(given["timestep"].item(), 4) == 0.957
    assert v.dtype == torch.float32
    error = (v - output[:, :length].float()).square().mean() / output.float().square().mean()
    assert error < 1e-3


def test_the_fingerprint_follows_weights_and_geometry(
    settings: QwenImageEditSettings, folder: Path, tmp_path: Path
) -> None:
    first = fingerprint(folder, settings)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert fingerprint(copy, settings) == first
    assert fingerprint(copy, settings.model_copy(update={"resolution": 128})) != first
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert fingerprint(copy, settings) != first


def test_big_files_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: QwenImageEditSettings
) -> None:
    folder = tiny_pipeline(tmp_path / "big")
    monkeypatch.setattr(module, "SMALL_FILE", 1024)
    first = fingerprint(folder, settings)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert fingerprint(folder, settings) != first


def test_zero_cond_t_comes_from_the_config_or_the_option(settings: QwenImageEditSettings, tmp_path: Path) -> None:
    newer = tiny_pipeline(tmp_path / "2511", zero_cond_t=True)
    by_config = QwenImageEdit(settings.model_copy(update={"model": str(newer)}))
    off = QwenImageEdit(settings.model_copy(update={"model": str(newer), "zero_cond_t": False}))
    assert by_config.backbone.zero_cond_t and not off.backbone.zero_cond_t
    source = by_config.collate([by_config.encode_source([picture()])] * 2)
    prompt = by_config.collate([by_config.encode_prompt(PROMPT, [picture()])] * 2)
    x, sigma = torch.randn(2, *source["latents"].shape[1:]), torch.tensor([0.2, 0.8])
    with torch.no_grad():
        ours = by_config.predict(x, sigma, source, prompt)
        assert torch.isfinite(ours).all() and not torch.allclose(ours, off.predict(x, sigma, source, prompt))


@pytest.mark.slow
def test_with_zero_cond_t_predict_equals_the_stock_pipelines_call(
    settings: QwenImageEditSettings, tmp_path: Path
) -> None:
    """2511: the transformer modulates reference tokens as at timestep zero."""
    newer = tiny_pipeline(tmp_path / "2511", zero_cond_t=True)
    base = QwenImageEdit(settings.model_copy(update={"model": str(newer)}))
    pipeline, pictures = stock(newer), [picture(0, 60, 120), picture(1, 100, 50)]
    assert pipeline.transformer.zero_cond_t
    recorder = Recorder(pipeline.transformer)
    source, prompt = base.encode_source(pictures), base.encode_prompt(PROMPT, pictures)
    rows, columns = source["shapes"][0].tolist()
    run_stock(pipeline, pictures, (columns * 16, rows * 16), num_inference_steps=3)
    assert len(recorder.calls) == 3
    for sigma, (given, output) in zip(Schedule(3, 3.0).sigmas(), recorder.calls, strict=True):
        length = base.latent_shape(source)[0]
        v = base.predict(
            given["hidden_states"][:, :length], sigma[None], base.collate([source]), base.collate([prompt])
        )
        assert torch.allclose(v, output[:, :length], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["tokenizer/tokenizer.json", "text_encoder/config.json", "text_encoder/model.safetensors", "vae/config.json",
     "vae/diffusion_pytorch_model.safetensors", "transformer/config.json",
     "transformer/diffusion_pytorch_model.safetensors"],
)  # fmt: skip
@pytest.mark.parametrize("text", [None, b"", b"\xff" * 300, b"[" * 200_000, b"[]", b"{}"])
def test_a_damaged_part_is_named(
    settings: QwenImageEditSettings, tmp_path: Path, name: str, text: bytes | None
) -> None:
    shutil.copytree(settings.model, tmp_path / "base")
    (tmp_path / "base" / name).unlink()
    if text is not None:
        (tmp_path / "base" / name).write_bytes(text)
    part = name.partition("/")[0]
    made = type(settings).model_validate(settings.model_dump() | {"model": str(tmp_path / "base")})
    with pytest.raises(OptionsError, match=f"base model: .*{part}"):
        base = QwenImageEdit(made)
        _ = base.backbone if part == "transformer" else base.encoders.part(part)


@pytest.mark.parametrize("part", ["text_encoder", "vae", "transformer"])
def test_a_part_that_lacks_a_tensor_is_named(settings: QwenImageEditSettings, tmp_path: Path, part: str) -> None:
    """The libraries draw what is missing at random, and only warn."""
    shutil.copytree(settings.model, tmp_path / "base")
    (file,) = (tmp_path / "base" / part).glob("*.safetensors")
    tensors = load_file(file)
    del tensors[next(name for name in sorted(tensors) if name.endswith("weight"))]
    save_file(tensors, file, {"format": "pt"})
    made = type(settings).model_validate(settings.model_dump() | {"model": str(tmp_path / "base")})
    base = QwenImageEdit(made)
    with pytest.raises(
        OptionsError, match=rf"the weights in .*/{part} lack 1 of their tensors, such as \S+weight; fetch it"
    ):
        _ = base.backbone if part == "transformer" else base.encoders.part(part)


def test_guidance_modes(base: QwenImageEdit) -> None:
    c, u = torch.randn(2, 5, 64), torch.randn(2, 5, 64)
    assert torch.allclose(base.guide(c, u, 5.0, "standard"), c + 4.0 * (c - u), atol=1e-5)
    rescaled = base.guide(c, u, 4.0, "rescaled")
    assert torch.allclose(rescaled.norm(dim=-1), c.norm(dim=-1), rtol=1e-5)
    assert torch.allclose(base.guide(c, u, 1.0, "rescaled"), c, atol=1e-6)


def test_export_names_the_base_and_no_local_path(base: QwenImageEdit, folder: Path) -> None:
    header = base.export_metadata()
    assert str(folder.parent) not in json.dumps(header)
    assert json.loads(header["cldistill.base_options"]) == {"dtype": "float32", "resolution": 64, "vl_resolution": 56}
    assert header["cldistill.base"] == "tiny"
    weight = torch.zeros(2, 3)
    assert base.export_state({"a.lora_A.weight": weight}) == {"transformer.a.lora_A.weight": weight}


@pytest.mark.slow
def test_structure_without_weights() -> None:
    settings = QwenImageEditSettings(model="Qwen/Qwen-Image-Edit-2509")
    base = QwenImageEdit(settings, weights=False)
    assert sum(parameter.numel() for parameter in base.backbone.parameters()) == 20_430_401_088


def test_it_is_a_base_model(base: QwenImageEdit) -> None:
    typed: BaseModel = base
    assert typed.name == "qwen-image-edit" and typed.resolution == 64


def test_the_tiny_template_is_the_stock_template(folder: Path) -> None:
    pipeline = stock(folder)
    prefix, _, rest = TEMPLATE.partition("Picture 1: <|vision_start|><|image_pad|><|vision_end|>")
    assert prefix + rest == pipeline.prompt_template_encode
    assert len(pipeline.tokenizer(prefix).input_ids) == pipeline.prompt_template_encode_start_idx
