"""The card as the hub reads it: YAML front matter with base, licence and tags, over the collection's own text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from cldistill.errors import CollectionError
from cldistill.manifest.yaml import parse
from cldistill.storage.untrusted import parse_json
from cldistill_plugins.hub.files import Upload

FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
TAGS = ("lora", "image-editing", "image-to-image", "cldistill", "few-step")


def read_card(text: str) -> tuple[dict[str, Any], str]:
    """Return a card's front matter and what follows it."""
    found = FRONT.match(text)
    if found is None:
        return {}, text
    try:
        data = parse_json(json.dumps(parse(found[1], "README.md", Path()).plain()))  # plain strings again
    except ValueError as error:
        raise CollectionError(f"README.md: its front matter cannot be read ({error}); mend or remove it") from error
    return (data if isinstance(data, dict) else {}), text[found.end() :]


def licence_of(text: str) -> str | None:
    """Return the licence that a card's front matter names.

    Raises:
        CollectionError: it names none that is a word.
    """
    found = read_card(text)[0].get("license")
    if found is not None and not isinstance(found, str):
        raise CollectionError(
            f"README.md: its `license:` is one word, such as apache-2.0, and not {found!r:.80}; mend it"
        )
    return found


def hub_card(upload: Upload, repository: str, licence: str | None, base_model: str | None) -> str:
    """Return the card for the hub: what its owner wrote stays, what was given by flags comes over it.

    Raises:
        CollectionError: nothing says the licence, or it or the base is none that the hub knows how to write.
    """
    data, body = read_card(upload.card)
    licence = licence or upload.licence
    if licence is None:
        raise CollectionError(
            f"{upload.folder}: nothing says under which licence it is; --license apache-2.0, say. {upload.base_licence}"
        )
    if not LICENCE.fullmatch(licence):
        raise CollectionError(
            f"--license {licence!r}: write it as the hub does, in small letters: apache-2.0, mit, other"
        )
    base = base_model or data.get("base_model") or upload.base
    if base_model is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", base_model):
        raise CollectionError(f"--base-model {base_model!r}: must be OWNER/NAME, as on the hub")
    data |= {"library_name": "diffusers", "pipeline_tag": "image-to-image", "license": licence}
    if base is not None:
        data |= {"base_model": base, "base_model_relation": "adapter"}
    given = data.get("tags")
    own = given if isinstance(given, list) else []
    data["tags"] = [*own, *(tag for tag in TAGS if tag not in own)]
    if upload.samples:
        data["widget"] = [
            {"text": upload.prompts[name], "output": {"url": path}} for name, path in upload.samples.items()
        ]
    front = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{front}---\n{_named(body, repository)}"


def front_matter(card: str) -> str:
    """Return the head of a card, to be shown."""
    found = FRONT.match(card)
    assert found is not None
    return found[0].rstrip("\n")


def _named(body: str, repository: str) -> str:
    """Let the card's own scripts name the repository instead of the folder that they lie in."""
    body = body.replace('collection = "."  # this folder, or its name on the Hub', f'collection = "{repository}"')
    return body.replace('Collection.load(".")', f'Collection.load("{repository}")')
