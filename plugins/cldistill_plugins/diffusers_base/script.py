"""The script of an exported card that runs a LoRA with nothing but diffusers (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cldistill.collection.card import Usage, UsageRequest
from cldistill_plugins.diffusers_base.settings import DiffusersSettings

SCRIPT = """\
import torch
{imports}from diffusers import FlowMatchEulerDiscreteScheduler, {pipeline}
from diffusers.utils import load_image

collection = "."  # this folder, or its name on the Hub
base = {base}
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = {pipeline}.from_pretrained(base, {revision}torch_dtype=torch.{dtype}).to(device)
pipe.load_lora_weights(collection, weight_name="pytorch_lora_weights.safetensors")
pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(collection)

image = load_image("photo.png")
{before}torch.manual_seed(0)
picture = pipe(
    image,
    {prompt!r},
    num_inference_steps={steps},
    {guidance},{arguments}
).images[0]
picture.save("edited.png")
"""


def pipeline_script(
    settings: DiffusersSettings, request: UsageRequest, pipeline: str, guidance: str,
    imports: str = "", before: str = "", arguments: str = "",
) -> str:  # fmt: skip
    """Return a script that runs in the collection's folder beside a picture ``photo.png``.

    Args:
        pipeline: Class of the family's pipeline.
        guidance: The argument that says how it guides, e.g. ``guidance_scale=1.0``.
        imports: Further lines of imports.
        before: Lines before the call.
        arguments: Further arguments of the call, each on a line of its own.
    """
    own, base = base_expression(settings)
    if request.sigmas is not None:
        arguments += f"\n    sigmas={list(request.sigmas)},"
    return SCRIPT.format(
        imports=own + imports, base=base, before=before, arguments=arguments, dtype=settings.dtype,
        steps=request.schedule.steps, prompt=request.prompt, pipeline=pipeline, guidance=guidance,
        revision="" if settings.revision is None else f"revision={settings.revision!r}, ",
    )  # fmt: skip


def script_usage(
    settings: DiffusersSettings, request: UsageRequest, pipeline: str, guidance: str, licences: Mapping[str, str],
    **lines: str,
) -> Usage:  # fmt: skip
    """Return a usage of the script alone; ``licences``: hub id -> a sentence; ``lines``: further ones of `pipeline_script`."""
    licence = licences.get(settings.model, "see the page or the folder that it comes from.")
    return Usage(
        pipeline_script(settings, request, pipeline, guidance, **lines), "Not tried with this family.", licence
    )


def base_expression(settings: DiffusersSettings) -> tuple[str, str]:
    """Return the import and the expression that name the base's folder or hub id (never a path of this machine)."""
    model = settings.model
    if model.startswith("package:"):
        package, _, inner = model.removeprefix("package:").partition("/")
        return "from importlib.resources import files\n", f"str(files({package!r}) / {inner!r})"
    if Path(model).is_absolute():
        return "", f"{Path(model).name!r}  # the folder of the base model"
    return "", repr(model)
