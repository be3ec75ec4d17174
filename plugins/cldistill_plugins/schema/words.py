"""Settings of a part out of the words of a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from cldistill.component import Settings
from cldistill.errors import OptionsError
from cldistill.manifest.messages import describe_errors
from cldistill.manifest.yaml import parse

S = TypeVar("S", bound=Settings)


def read_settings(model: type[S], words: Sequence[str], flag: str, root: Path) -> S:
    """Return the settings that a command was given as ``KEY=VALUE``, values as YAML; relative paths start from ``root``.

    Raises:
        OptionsError: one line for each mistake.
    """
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
