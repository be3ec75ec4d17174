"""The prompts of every effect: given by the isolator, and previewed without torch, a model or a network connection."""

from __future__ import annotations

from pathlib import Path

from cldistill.component import BuildContext
from cldistill.data.triggers import Tokenize, check_triggers
from cldistill.errors import CldistillError, ManifestError, OptionsError
from cldistill.manifest.checked import CheckedManifest
from cldistill.protocols import PromptIsolator
from cldistill.records import BaseDescription, Prompts
from cldistill.storage.files import default_cache


def dry_context(checked: CheckedManifest) -> BuildContext:
    """Return a context for looking, not for running: ``weights=False`` forbids downloads and remote endpoints."""
    return checked.context(Path.cwd() / checked.manifest.name, default_cache(), weights=False)


def isolate(checked: CheckedManifest, isolator: PromptIsolator, tokenize: Tokenize) -> dict[str, Prompts]:
    """Give every effect its prompts, and see that the triggers differ after tokenisation."""
    settled = checked.settled_prompts
    prompts = {effect.name: settled.get(effect.name) or isolator.isolate(effect) for effect in checked.effects}
    check_triggers({name: told.trigger for name, told in prompts.items() if told.trigger}, tokenize)
    return prompts


def preview_prompts(checked: CheckedManifest) -> dict[str, Prompts]:
    """Return effect -> prompts, as far as the isolator can tell without a remote captioner.

    ManifestError: the isolator refuses, or two triggers are the same (to the base's tokenizer, where it is on disk).
    """
    where, part = checked.file.where("prompts"), checked.prompts
    try:
        tokenize, isolator = _tokenizer(checked.description.tokenizer), part.build(dry_context(checked))
        return _must_fit(isolate(checked, isolator, tokenize), checked.description, tokenize)
    except OptionsError as error:
        raise OptionsError(f"{checked.file.where('prompts', 'options')}: {error}") from error
    except CldistillError as error:
        raise ManifestError(f"{where}: {error}") from error
    except Exception as error:  # a plugin's own code, on a user's values: say whose and where
        cause = f"{type(error).__name__}: {error}"
        raise ManifestError(f"{where}: {part.name} ({part.entry.owner}): {cause}") from error


def _must_fit(prompts: dict[str, Prompts], base: BaseDescription, tokenize: Tokenize) -> dict[str, Prompts]:
    """Return the prompts; `ManifestError` for one that is longer than the base's text encoder takes."""
    most = base.prompt_tokens if base.tokenizer is not None else None
    for effect, told in prompts.items() if most is not None else ():
        found = max(len(tokenize(text)) for text in (told.student, told.teacher))
        if found > (most or 0):
            raise ManifestError(
                f"effect {effect!r}: its prompt has {found} tokens, and the encoder takes {most}: shorten it"
            )
    return prompts


def _tokenizer(path: Path | None) -> Tokenize:
    """Return the base's own tokenizer, or characters where only the hub has it."""
    if path is None or not path.is_file():
        return lambda text: tuple(map(ord, text))
    from tokenizers import Tokenizer

    try:
        model = Tokenizer.from_file(str(path))
    except Exception as error:  # it raises nothing else
        raise ManifestError(f"base model: {path} is no tokenizer ({error}); fetch it again") from error
    return lambda text: tuple(model.encode(text, add_special_tokens=False).ids)
