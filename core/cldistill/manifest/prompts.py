"""What the networks will be told: prompts and triggers, found out without torch, a model or a network connection."""

from __future__ import annotations

from pathlib import Path

from cldistill.component import BuildContext
from cldistill.data.triggers import check_triggers
from cldistill.errors import CldistillError, ManifestError, OptionsError
from cldistill.manifest.checked import CheckedManifest, default_cache
from cldistill.protocols import PromptIsolator
from cldistill.records import Prompts


def dry_context(checked: CheckedManifest) -> BuildContext:
    """Return a context for looking, not for running: ``weights=False`` forbids downloads and remote endpoints."""
    return BuildContext(
        root=checked.file.root,
        cache=default_cache(),
        output=Path.cwd() / checked.manifest.name,
        seed=checked.manifest.train.seed,
        effects=checked.effects,
        weights=False,
        outline=checked.outline,
    )


def preview_prompts(checked: CheckedManifest) -> dict[str, Prompts]:
    """Return effect -> prompts, as far as the isolator can tell without a remote captioner.

    Raises:
        ManifestError: the isolator refuses, or two triggers are the same (after tokenisation, where the base's
            tokenizer is on disk).
    """
    where, part = checked.file.where("prompts"), checked.prompts
    try:
        prompts = _isolate(checked)
        words = {name: prompt.trigger for name, prompt in prompts.items() if prompt.trigger}
        check_triggers(words, _Tokenizer(checked.description.tokenizer))
    except OptionsError as error:
        raise OptionsError(f"{checked.file.where('prompts', 'options')}: {error}") from error
    except CldistillError as error:
        raise ManifestError(f"{where}: {error}") from error
    except Exception as error:  # a plugin's own code, on a user's values: say whose and where
        cause = f"{type(error).__name__}: {error}"
        raise ManifestError(f"{where}: {part.name} ({part.entry.owner}): {cause}") from error
    return prompts


def _isolate(checked: CheckedManifest) -> dict[str, Prompts]:
    isolator: PromptIsolator = checked.prompts.build(dry_context(checked))
    settled = checked.settled_prompts
    return {effect.name: settled.get(effect.name) or isolator.isolate(effect) for effect in checked.effects}


class _Tokenizer:
    """Token ids by the base's own tokenizer, or characters where only the hub has it."""

    def __init__(self, path: Path | None) -> None:
        self._model = None
        if path is not None and path.is_file():
            from tokenizers import Tokenizer

            self._model = Tokenizer.from_file(str(path))

    def __call__(self, text: str) -> tuple[int, ...]:
        if self._model is None:
            return tuple(map(ord, text))
        return tuple(self._model.encode(text, add_special_tokens=False).ids)
