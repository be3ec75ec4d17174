"""`cldistill inspect`: an adapter or collection, described by its header alone (torch-free)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cldistill.cli.options import JsonOption
from cldistill.errors import ManifestError
from cldistill_plugins.generation.api import BaseOption

if TYPE_CHECKING:
    from cldistill.records import BaseDescription


def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="An adapter file, a folder with one, a collection, or OWNER/NAME[@REVISION]."
        ),
    ],
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe any adapter or collection by its header: format, rank, scale, effects, and how it fits a base."""
    from cldistill.adapters.hub import local_path
    from cldistill_plugins.inspection.description import inspect_file, render

    found = inspect_file(local_path(file), describe_model(base) if base is not None else None)
    if as_json:
        typer.echo(found.to_json())
        return
    from rich.console import Console

    Console().print(render(found))


def describe_model(model: str) -> BaseDescription:
    """Return the description of a model by the first installed base that can read its config.

    Raises:
        ManifestError: none can; with what each of them says.
    """
    from cldistill.catalogue import load_catalogue
    from cldistill.component import RunOutline

    reasons = []
    for entry in load_catalogue():
        component = entry.component
        if component.kind != "base_model" or "model" not in component.settings.model_fields:
            continue
        try:
            settings = component.settings.model_validate({"model": model}, context={"root": Path.cwd()})
            described: BaseDescription | None = component.needs(settings, RunOutline()).base
        except Exception as error:  # a plugin's own code on somebody else's model
            reasons.append(f"{component.name}: {error}")
            continue
        if described is not None:
            return described
    tried = "; ".join(reasons) or "none is installed"
    raise ManifestError(f"--base {model}: no installed base model can describe it ({tried})")
