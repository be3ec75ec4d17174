"""Train a collection and use it, from Python: ``python examples/python_api.py MANIFEST PICTURE [OUTPUT]``.

MANIFEST is a file or the name of a shipped recipe (``cldistill run quickstart`` does the same as the first half).
"""

import sys
from pathlib import Path

from rich.console import Console

from cldistill.collection import Collection
from cldistill.manifest.check import check_manifest
from cldistill.runner import execute


def main(manifest: str, picture: str, output: str = "runs/python-api") -> None:
    """Check, train and export the manifest's run, then edit ``picture`` with each of its effects."""
    checked = check_manifest(manifest)
    outcome = execute(checked, Path(output), Console(), command=f"cldistill run {manifest} --output {output}")
    if outcome.collection is None:
        return  # stopped by Ctrl-C: the same call goes on from where it was
    collection = Collection.load(outcome.collection)
    for effect in collection.effects:
        collection.generate(picture, effect.name, seed=7).save(Path(output) / f"{effect.name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
