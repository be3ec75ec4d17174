"""`cldistill plan`: does a run fit, how long does it take, and what will it do.  Nothing is loaded, no data is needed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cldistill.cli.options import FilesOption, JsonOption, ManifestArgument, SetOption

if TYPE_CHECKING:
    from cldistill.manifest.checked import CheckedManifest
    from cldistill_plugins.planning.fit import Device


def plan(
    manifest: ManifestArgument,
    overrides: SetOption = None,
    files: FilesOption = True,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Plan for this card (rtx-4090, h100-80gb, ...), not for what is here."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Plan for a device of this memory: 24GB, 79.6GiB.")
    ] = None,
    fsdp: Annotated[
        int | None,
        typer.Option("--fsdp", metavar="N", min=1, help="Plan for N devices that share the base's weights by FSDP."),
    ] = None,
    as_json: JsonOption = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the manifest with every default filled in, as YAML.")
    ] = False,
) -> None:
    """Say whether a run fits this device, how long it takes, and all that it will do; needs no data."""
    from cldistill.errors import ManifestError
    from cldistill.manifest.check import check_manifest, required_parts
    from cldistill.manifest.files import survey_files
    from cldistill.manifest.messages import Problems, tell

    checked, missing = check_manifest(manifest, overrides or (), files=False), list[str]()
    if files:
        checked, problems = survey_files(checked, required_parts(checked, measuring=False), opened=False)
        missing = tell(Problems(ManifestError, problems), checked.file.tree).splitlines()
    if show:
        import yaml

        from cldistill.manifest.resolved import resolve

        typer.echo(yaml.safe_dump(resolve(checked), sort_keys=False, allow_unicode=True), nl=False)
        return
    from cldistill_plugins.planning.fit import ranks_here, remedies
    from cldistill_plugins.planning.hours import hours
    from cldistill_plugins.planning.plan import make_plan
    from cldistill_plugins.planning.print import Verdict, print_plan, print_verdict
    from cldistill_plugins.ranks.api import refuse_uncut

    if (ranks := fsdp or ranks_here()) > 1:
        refuse_uncut(checked.base.settings)
    planned, there = make_plan(checked, ranks), planned_device(checked, device, memory)
    remedy = None
    if there is not None and planned.peak_bytes > there.bytes:
        remedy = remedies(checked, manifest, overrides or (), there.bytes, ranks)
    verdict = Verdict(there, planned.peak_bytes, hours(checked, there), remedy, tuple(missing))
    if as_json:
        typer.echo(json.dumps({"verdict": asdict(verdict) | {"fits": verdict.fits}, **planned.to_json()}, indent=2))
        return
    from rich.console import Console

    console = Console(emoji=False)  # `:100:` is a line of a file
    print_verdict(planned, verdict, console)
    print_plan(planned, console)


def planned_device(checked: CheckedManifest, device: str | None, memory: str | None) -> Device | None:
    """Return the device to plan for: the one that was named, or what is here.

    Raises:
        OptionsError: a card that the table lacks, or no size.
    """
    from cldistill_plugins.planning.devices import known_card, memory_size, with_speed
    from cldistill_plugins.planning.fit import Device, device_here

    card = known_card(device) if device is not None else None
    if memory is not None:
        named = Device(f"a device of {memory}", memory_size(memory)) if card is None else card
        return Device(named.name, memory_size(memory), named.tflops)
    here = device_here(cpu=checked.manifest.train.device == "cpu") if card is None else card
    return with_speed(here) if here is not None else None
