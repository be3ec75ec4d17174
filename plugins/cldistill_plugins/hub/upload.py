"""One commit of all files, with the token that huggingface_hub keeps: it is neither asked for nor shown here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cldistill.errors import CollectionError
from cldistill_plugins.hub.files import CARD, Upload

SHOWN_LINES = 6
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Uploaded:
    """The place of an uploaded collection."""

    url: str
    pinned: str
    """``OWNER/NAME@COMMIT``."""


def must_be_name(repository: str) -> None:
    """Refuse what can be no name on the hub.

    Raises:
        CollectionError: with the form of one.
    """
    name = repository.partition("/")[2]
    if not NAME.fullmatch(repository) or "--" in repository or ".." in repository or len(name) > 96:
        raise CollectionError(
            f"{repository!r} can be no name on the hub; write OWNER/NAME, of letters, digits, '-', '_', '.'"
        )


def upload(found: Upload, card: str, repository: str, *, public: bool, message: str) -> Uploaded:
    """Make the repository if it is not there, and commit the files to it at once.

    Raises:
        CollectionError: nobody is logged in, the hub refuses, or the repository is public and that was not asked for.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise CollectionError(
            "nobody is logged in to the hub on this machine: `hf auth login`, or set HF_TOKEN, with a token that may write"
        )
    api = HfApi(library_name="cldistill")
    with refusals(repository):
        api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.model_info(repository).private:
            raise CollectionError(
                f"{repository}: is there already, and everybody can read it; --public says that this is meant"
            )
        files = [
            CommitOperationAdd(path.relative_to(found.folder).as_posix(), card.encode() if path.name == CARD else path)
            for path in found.files
        ]
        done = api.create_commit(repository, files, commit_message=message)
    return Uploaded(f"{api.endpoint}/{repository}", f"{repository}@{done.oid}")


@contextmanager
def refusals(repository: str) -> Iterator[None]:
    """Say in a sentence what the hub refused; its own words may repeat what was sent."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {
            401: "the token is not valid (any more): `hf auth login`",
            403: "the token may not write there: check the owner's name, and that the token has the right to write",
            404: "there is no such owner, or it is hidden from you",
            409: "somebody committed to it at the same time; try again",
        }.get(status, "try again later")
        raise CollectionError(f"{repository}: the hub refuses ({status}); {why}") from None
    except ValueError as error:  # the card, which the hub looks at before it takes anything
        said = " ".join(line.strip() for line in str(error).splitlines()[:SHOWN_LINES] if line.strip())
        raise CollectionError(
            f"{repository}: the hub refuses the card's front matter; mend README.md, or --license: {said}"
        ) from None
    except OfflineModeIsEnabled:
        raise CollectionError(f"{repository}: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it") from None
    except OSError as error:  # no network, and what lies on the disk
        raise CollectionError(
            f"{repository}: the hub cannot be reached ({type(error).__name__}); nothing was committed"
        ) from None
