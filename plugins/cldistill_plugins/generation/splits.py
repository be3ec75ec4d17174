"""Splits: several collections beside a ``groups.json``, written by ``cldistill group``; which of them has an effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from cldistill.errors import CollectionError, UnsafePathError, nearest
from cldistill.manifest.messages import first_problem
from cldistill.manifest.models import EffectName
from cldistill.storage.untrusted import inside, parse_json

SPLIT = "groups.json"


def _inside(written: object, info: ValidationInfo) -> Path:
    assert info.context is not None, "read_split gives it"
    return inside(info.context["folder"], written)


PathInside = Annotated[Path, BeforeValidator(_inside)]
"""A path relative to the file; `UnsafePathError` where it leads out of the file's folder."""


class StoredPart(BaseModel):
    """Base of what ``groups.json`` is read by: a stranger may have written it, so nothing is taken for what it is not."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class StoredGroup(StoredPart):
    """One group, as far as making pictures goes."""

    name: EffectName
    effects: list[EffectName]
    collection: PathInside


class StoredSplit(StoredPart):
    """A split, as far as making pictures goes: no two groups of one name, and no effect in two."""

    groups: Sequence[StoredGroup]

    @field_validator("groups")
    @classmethod
    def _once(cls, groups: Sequence[StoredGroup]) -> Sequence[StoredGroup]:
        for kind, names in (
            ("groups have the name", [group.name for group in groups]),
            ("times it lists the effect", [effect for group in groups for effect in group.effects]),
        ):
            name, times = max(Counter(names).items(), key=itemgetter(1), default=("", 0))
            if times > 1:
                raise ValueError(f"{times} {kind} {name!r}")
        return groups


Stored = TypeVar("Stored", bound=StoredSplit)


def routed_folders(collection: Path) -> list[Path]:
    """Return the folders of a split's groups, or the collection itself."""
    if not (collection / SPLIT).is_file():
        return [collection]
    return [group.collection for group in read_split(collection / SPLIT, StoredSplit).groups if group.effects]


def routed(collection: Path, effects: Sequence[str]) -> Path:
    """Return the collection that has the effects: that of a group where ``collection`` holds a split, else itself.

    Raises:
        CollectionError: no group holds an effect, or they lie in several: one LoRA is mounted at a time.
    """
    file = collection / SPLIT
    if not file.is_file():
        return collection
    group_of = {effect: group for group in read_split(file, StoredSplit).groups for effect in group.effects}
    for name in effects:
        if name not in group_of:
            raise CollectionError(f"{file}: no group holds the effect {name!r}{nearest(name, group_of)}")
    found = {group_of[name].name: group_of[name].collection for name in effects}
    if len(found) > 1:
        raise CollectionError(
            f"{file}: the effects {', '.join(effects)} lie in {len(found)} collections ({', '.join(found)}); "
            "apply one, then the other on its picture"
        )
    return next(iter(found.values()), collection)


def read_split(file: Path, model: type[Stored]) -> Stored:
    """Return what a split's file says, by the model of what its reader needs.

    Raises:
        CollectionError: the file was not written by `cldistill group`, with the first key that is wrong.
        UnsafePathError: a path leads out of the split's folder.
    """
    refused = f"{file}: was not written by `cldistill group`, or was changed"
    try:
        data = parse_json(inside(file.parent, file.name).read_bytes())
        return model.model_validate(data, context={"folder": file.parent})
    except ValidationError as error:
        for cause in (one.get("ctx", {}).get("error") for one in error.errors(include_url=False)):
            if isinstance(cause, UnsafePathError):
                raise cause from None
        raise CollectionError(f"{refused}: {first_problem(error)}") from error
    except UnsafePathError:
        raise
    except (ValueError, OSError) as error:
        raise CollectionError(f"{refused} ({error!r})") from error
