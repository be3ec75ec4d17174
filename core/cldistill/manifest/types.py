"""What every part of a manifest is made of: names, paths, counts, and strict, frozen models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from cldistill.component import resolve_path
from cldistill.manifest.yaml import Text

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Names end up in file names and tables: letters, digits, ``.``, ``_`` and ``-``."""


def resolve(value: object) -> object:
    """Resolve a path against the folder of the file it was written in (`Text` knows it), or ``package:``."""
    if not isinstance(value, str):
        return value
    root = value.root if isinstance(value, Text) else None
    try:
        return resolve_path(value, cast(ValidationInfo, SimpleNamespace(context={"root": root})))
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}; install the package that this file lies in") from error


ManifestPath = Annotated[Path, BeforeValidator(resolve)]
Count = Annotated[int, Field(ge=1)]
Step = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


class ManifestPart(BaseModel):
    """Base of all: unknown keys are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PartRef(ManifestPart):
    """A component by name, with its options."""

    use: str
    options: dict[str, Any] = {}
