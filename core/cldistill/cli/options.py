"""Arguments that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cldistill.errors import OptionsError

if TYPE_CHECKING:
    from cldistill.component import Settings

S = TypeVar("S", bound="Settings")

ManifestArgument = Annotated[str, typer.Argument(metavar="MANIFEST", help="A manifest file, or the name of a recipe.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one value, e.g. losses.1.options.tau_max=700."),
]
FilesOption = Annotated[
    bool, typer.Option("--files/--no-files", help="Whether pictures, teachers and adapters must be there.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result, warnings and errors.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Let the libraries speak; show where errors arise.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def read_settings(model: type[S], words: Sequence[str], flag: str, root: Path) -> S:
    """Return the settings that a command was given as ``KEY=VALUE``, values as YAML; relative paths start from ``root``.

    Raises:
        OptionsError: one line for each mistake.
    """
    import yaml
    from pydantic import ValidationError

    from cldistill.manifest.messages import describe_errors
    from cldistill.manifest.yaml import parse

    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise OptionsError(f"{flag} {word}: write KEY=VALUE")
        try:
            values[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise OptionsError(f"{flag} {word}: the value is no YAML ({error})") from None
    try:
        return model.model_validate(values, context={"root": root})
    except ValidationError as error:
        raise OptionsError(describe_errors(error, model, parse(yaml.safe_dump(values), flag, root))) from error
