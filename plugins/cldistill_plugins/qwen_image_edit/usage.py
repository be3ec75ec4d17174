"""Instructions of exported cards for stock programs: a diffusers script and ComfyUI's settings for a LoRA (torch-free)."""

from __future__ import annotations

from pathlib import Path

from cldistill.collection.card import Usage, UsageRequest
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

STOCK_RESOLUTION, STOCK_VL_RESOLUTION = 1024, 384

SCRIPT = """\
import torch
{imports}from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
from diffusers.utils import load_image

collection = "."  # this folder, or its name on the Hub
base = {base}
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = QwenImageEditPlusPipeline.from_pretrained(base, {revision}torch_dtype=torch.{dtype}).to(device)
pipe.load_lora_weights(collection, weight_name="pytorch_lora_weights.safetensors")
pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(collection)

image = load_image("photo.png")
{sizes}torch.manual_seed(0)
picture = pipe(
    image,
    {prompt!r},
    num_inference_steps={steps},
    true_cfg_scale=1.0,{arguments}
).images[0]
picture.save("edited.png")
"""

SIZES = """\
# This base is not of the stock size: the pipeline's two area constants, and the output's size, follow it.
stock.VAE_IMAGE_SIZE, stock.CONDITION_IMAGE_SIZE = {resolution}**2, {vl_resolution}**2
width, height = stock.calculate_dimensions(stock.VAE_IMAGE_SIZE, image.width / image.height)
"""

COMFYUI = """\
Load the base with *Load Diffusion Model*, this file with *LoraLoaderModelOnly* (strength 1), and set

| node | settings |
|---|---|
| ModelSamplingAuraFlow | shift {shift:g} |
| KSampler | steps {steps}, cfg 1.0, sampler `lcm`, scheduler `simple`, denoise 1.0 |
| TextEncodeQwenImageEditPlus | the effect's prompt, and the picture |
"""

LICENCES = {
    "Qwen/Qwen-Image-Edit-2509": "Qwen-Image-Edit-2509 is under Apache-2.0.",
    "Qwen/Qwen-Image-Edit-2511": "Qwen-Image-Edit-2511 is under Apache-2.0.",
}


def usage(settings: QwenImageEditSettings, request: UsageRequest) -> Usage:
    """Write the usage for one base and one example prompt."""
    comfyui = COMFYUI.format(shift=request.shift, steps=request.steps)
    licence = LICENCES.get(settings.model, "see the page or the folder that it comes from.")
    return Usage(python=script(settings, request), comfyui=comfyui, licence=licence)


def script(settings: QwenImageEditSettings, request: UsageRequest) -> str:
    """Return a script that runs in the collection's folder beside a picture ``photo.png``."""
    stock = (settings.resolution, settings.vl_resolution) == (STOCK_RESOLUTION, STOCK_VL_RESOLUTION)
    imports, base = _base(settings)
    sizes = "" if stock else SIZES.format(resolution=settings.resolution, vl_resolution=settings.vl_resolution)
    if not stock:
        imports += "import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as stock\n"
    arguments = "" if stock else "\n    width=width,\n    height=height,"
    if request.sigmas is not None:
        arguments += f"\n    sigmas={list(request.sigmas)},"
    return SCRIPT.format(
        imports=imports, base=base, sizes=sizes, arguments=arguments, dtype=settings.dtype, steps=request.steps,
        prompt=request.prompt, revision="" if settings.revision is None else f"revision={settings.revision!r}, ",
    )  # fmt: skip


def _base(settings: QwenImageEditSettings) -> tuple[str, str]:
    """Return the import and the expression that name the base's folder or hub id (never a path of this machine)."""
    model = settings.model
    if model.startswith("package:"):
        package, _, inner = model.removeprefix("package:").partition("/")
        return "from importlib.resources import files\n", f"str(files({package!r}) / {inner!r})"
    if Path(model).is_absolute():
        return "", f"{Path(model).name!r}  # the folder of the base model"
    return "", repr(model)
