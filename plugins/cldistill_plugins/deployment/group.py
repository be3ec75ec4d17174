"""``cldistill group``: split a bank by least interference, write a manifest a group, and train each."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.errors import CollectionError, ManifestError, Stopped
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.resolved import manifest_digest
from cldistill.progress.program import program
from cldistill.progress.stages import Stages
from cldistill.records import Change
from cldistill.storage.files import atomic_write_text, only_writer, sha256_bytes
from cldistill_plugins.deployment.group_manifests import write_manifests
from cldistill_plugins.deployment.settings import LeastInterferenceSettings
from cldistill_plugins.deployment.split import FILE, INTERFERENCE, Group, Groups, read_groups, write_groups
from cldistill_plugins.evaluation.api import provenance

if TYPE_CHECKING:
    from cldistill_plugins.deployment.least_interference import Grouping

RULE = "least-interference"
PARTS = 1000
"""Parts in which the progress of a measurement is shown."""


@dataclass(frozen=True)
class GroupingOrder:
    """The split that the command line asks for: made by the command ``group``, carried out by `group_bank`."""

    checked: CheckedManifest
    settings: LeastInterferenceSettings
    groups: int
    output: Path
    command: str
    changed: bool = False
    """True where ``--set`` changed the manifest."""

    @property
    def key(self) -> str:
        """Hash all that the split depends on."""
        options = self.settings.model_dump(mode="json")
        parts = [manifest_digest(self.checked), RULE, options, self.groups]
        return sha256_bytes(json.dumps(parts, sort_keys=True).encode())


def how_many(effects: int, into: int | None, at_most: int | None) -> int:
    """Return the number of groups for ``--into K`` or ``--at-most M``.

    Raises:
        ManifestError: neither or both are given, or there are fewer effects than groups.
    """
    if (into is None) == (at_most is None):
        raise ManifestError("say either --into K (how many collections) or --at-most M (effects in one collection)")
    groups = into if into is not None else math.ceil(effects / (at_most or 1))
    if groups > effects:
        raise ManifestError(f"--into {groups}: the manifest has {effects} effects, and no collection may be empty")
    return groups


def group_bank(order: GroupingOrder, cache: Path, stages: Stages, stop: Callable[[], bool]) -> Groups:
    """Split the bank and write ``interference.json``, the groups' manifests and ``groups.json``.

    A split of the same manifest by the same options that lies in the folder already is taken as it is.

    Raises:
        CollectionError: the folder holds another split.
        Stopped: ``stop`` said so while interference was measured.
    """
    found = existing(order)
    if found is not None:
        return found
    # The folder is taken first: that it cannot be written to is said before hours of measuring, not after.
    with only_writer(order.output), stages.stage("measuring interference", PARTS) as advance:
        grouping = measure(order, cache, stages, stop, advance)
    groups = tuple(
        Group(f"{order.checked.manifest.name}-{number}", tuple(members), f"group-{number}.yaml", f"group-{number}")
        for number, members in enumerate(grouping.groups, start=1)
    )
    atomic_write_text(order.output / INTERFERENCE, json.dumps(interference_json(order, grouping), indent=1) + "\n")
    write_manifests(order.checked, groups, order.output, changed=order.changed)
    split = Groups(
        order.checked.manifest.name, groups, order.key, grouping.measured, dict(grouping.figures), order.output
    )
    write_groups(split)
    return split


def existing(order: GroupingOrder) -> Groups | None:
    """Return the split that the folder holds, if it is the one asked for.

    Raises:
        CollectionError: it is another.
    """
    if not (order.output / FILE).exists():
        return None
    found = read_groups(order.output)
    if found.key != order.key:
        raise CollectionError(
            f"{order.output / FILE}: holds the split of another manifest, or by another option or number of groups; "
            " name another --output, or remove it"
        )
    return found


def measure(
    order: GroupingOrder, cache: Path, stages: Stages, stop: Callable[[], bool], advance: Callable[[int], None]
) -> Grouping:
    """Measure interference and split the bank by it.

    Raises:
        Stopped: ``stop`` said so.
    """
    from cldistill_plugins.deployment.group_run import GroupRequest, measuring_run
    from cldistill_plugins.deployment.least_interference import LeastInterference

    checked, done = order.checked, 0

    def show(share: float) -> None:
        nonlocal done
        reached = round(PARTS * min(1.0, share))
        advance(reached - done)
        done = reached
        if stop():
            raise Stopped("stopped while measuring interference; the same command measures again")

    request = GroupRequest(
        checked.effects, order.groups, lambda: measuring_run(checked, order.output, cache, stages, stop), show
    )
    return LeastInterference(order.settings).group(request)


def interference_json(order: GroupingOrder, grouping: Grouping) -> dict[str, Any]:
    """Return ``interference.json``: the matrix, rows and columns in the order of ``effects`` (null: not measured)."""
    names = [effect.name for effect in order.checked.effects]
    rows: Mapping[str, Mapping[str, float]] = grouping.interference
    return {
        "format": 1,
        "manifest": order.checked.manifest.name,
        **provenance(order.command, order.checked.manifest.train.seed),
        "grouper": {"use": RULE, "options": order.settings.model_dump(mode="json")},
        "measured": grouping.measured,
        "figures": dict(grouping.figures),
        "groups": [list(group) for group in grouping.groups],
        "effects": names,
        "interference": [[rows.get(row, {}).get(column) for column in names] for row in names],
    }


def train_groups(groups: Groups, console: Any, command: str, may_change: Collection[Change] = ()) -> bool:
    """Run every group's manifest, one after the other; each resumes by itself.  False: a signal stopped one.

    ``may_change``: changes since their checkpoints with which runs may go on; they record them.
    """
    from rich.markup import escape

    from cldistill.manifest.check import check_manifest
    from cldistill.runner import execute

    for group in groups.groups:
        console.print(f"[bold]{escape(group.name)}[/]: {len(group.effects)} effects", highlight=False)
        checked = check_manifest(str(groups.folder / group.manifest))
        output = groups.folder / group.run
        if not execute(checked, output, console, command, may_change=may_change).finished:
            return False
    return True


def group_command(words: Sequence[str]) -> str:
    """Return the command that was typed, as it can be copied."""
    return shlex.join([*program(), *words])
