"""Options of one part, read by its settings class; relative paths start from the file in which they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from cldistill.component import Settings
from cldistill.errors import OptionsError
from cldistill.manifest import PartRef
from cldistill.manifest_file import ManifestFile
from cldistill.manifest_yaml import Loc, Text


def read_settings(file: ManifestFile, loc: Loc, ref: PartRef, settings: type[Settings]) -> Settings:
    """Validate the options of a part; each relative path starts from the folder of the file in which it was written.

    Raises:
        OptionsError, pydantic.ValidationError: the options do not fit.
    """
    root = file.place(*loc, "options").root
    options = dict(ref.options)
    try:
        for key, value in options.items():
            other = _root_of(value)
            if other is not None and other != root and key in settings.model_fields:
                # Merged in by `extends` from another folder: resolve it there first; resolved, it stays as it is.
                options[key] = _resolve_in(settings, key, value, other)
        return settings.model_validate(options, context={"root": root})
    except ModuleNotFoundError as error:
        raise OptionsError(f"{file.where(*loc, 'options')}: {error}, which a `package:` path names") from error


def _root_of(value: Any) -> Path | None:
    if isinstance(value, Text):
        return value.root
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((root for root in map(_root_of, inner) if root is not None), None)


def _resolve_in(settings: type[Settings], key: str, value: Any, root: Path) -> Any:
    field = settings.model_fields[key]
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        return TypeAdapter(annotation).validate_python(value, context={"root": root})
    except ValidationError:
        return value  # the whole model reports it, with its place
