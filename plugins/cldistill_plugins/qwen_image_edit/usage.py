"""Instructions of exported cards for stock programs: a diffusers script and ComfyUI's settings for a LoRA (torch-free)."""

from __future__ import annotations

from cldistill.collection.card import Usage, UsageRequest
from cldistill_plugins.diffusers_base.api import STOCK_SIDE, pipeline_script
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

STOCK_VL_RESOLUTION = 384

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
| KSampler | steps {steps}, cfg 1.0, sampler `{sampler}`, scheduler `simple`, denoise 1.0 |
| TextEncodeQwenImageEditPlus | the effect's prompt, and the picture |
"""

LICENCES = {
    "Qwen/Qwen-Image-Edit-2509": "Qwen-Image-Edit-2509 is under Apache-2.0.",
    "Qwen/Qwen-Image-Edit-2511": "Qwen-Image-Edit-2511 is under Apache-2.0.",
}


def usage(settings: QwenImageEditSettings, request: UsageRequest) -> Usage:
    """Write the usage for one base and one example prompt."""
    own = request.schedule
    comfyui = COMFYUI.format(shift=own.shift, steps=own.steps, sampler="lcm" if own.stochastic else "euler")
    licence = LICENCES.get(settings.model, "see the page or the folder that it comes from.")
    return Usage(python=script(settings, request), comfyui=comfyui, licence=licence)


def script(settings: QwenImageEditSettings, request: UsageRequest) -> str:
    """Return a script that runs in the collection's folder beside a picture ``photo.png``."""
    stock = (settings.resolution, settings.vl_resolution) == (STOCK_SIDE, STOCK_VL_RESOLUTION)
    sizes = "" if stock else SIZES.format(resolution=settings.resolution, vl_resolution=settings.vl_resolution)
    imports = "" if stock else "import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as stock\n"
    arguments = "" if stock else "\n    width=width,\n    height=height,"
    return pipeline_script(
        settings, request, "QwenImageEditPlusPipeline", "true_cfg_scale=1.0", imports, before=sizes, arguments=arguments
    )
