"""Pairs in folders: two folders with equal file names, names that end in the two sides, or a list beside the pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from cldistill.data.items import Listing, is_picture, list_pictures
from cldistill.errors import DataError
from cldistill.records import Item
from cldistill_plugins.data.rows import TABLES
from cldistill_plugins.data.tables import is_pair_table, table_captions, table_pairs

BEFORE = (
    "source", "sources", "src", "before", "input", "inputs", "original", "originals", "control", "controls",
    "control_image", "control_images", "conditioning", "conditioning_images", "condition", "reference", "references",
    "start", "a",
)  # fmt: skip
AFTER = (
    "target", "targets", "tgt", "after", "output", "outputs", "edited", "result", "results", "ground_truth", "gt", "end",
    "images", "image", "img", "b",
)  # fmt: skip
"""Names of folders, in any case; of several the first that is there."""
ENDS = (
    ("before", "after"), ("source", "target"), ("src", "tgt"), ("input", "output"), ("original", "edited"),
    ("orig", "edit"), ("start", "end"), ("control", "target"), ("reference", "target"), ("in", "out"), ("r", "l"), ("r", "t"),
)  # fmt: skip
"""Ends of names in one folder, after ``_``, ``-``, ``.`` or a space; single letters count only if all pictures have one."""
WORDS = ("captions", "caption", "prompts", "prompt", "text", "texts", "txt")
"""Folders of texts beside the two sides."""
TEXTS = (".txt", ".caption")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.json")
OWN = ("effect.json",)
"""Files of cldistill's own beside pairs."""
ACCEPTED = (
    "folders source/ and target/ with equal file names (also before/ and after/, input/ and output/, or control/ beside the "
    "pictures); pictures that end in _before and _after (_source and _target, _start and _end, _R and _L); a .jsonl, .json or "
    ".csv of source, target and prompt, or metadata.jsonl beside the pictures; with a .txt beside a picture as its prompt"
)


def folder_pairs(folder: Path, pool: str, prompt: str) -> Listing:
    """List the pairs in a folder, in whichever layout they lie there; pictures alone have no after-pictures.

    Raises:
        DataError: there are none; with what lies there and what would be accepted.
    """
    metadata = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if metadata is not None and is_pair_table(metadata):
        return table_pairs(metadata, pool, prompt)
    found = _by_sides(folder) or _by_ends(folder)
    if found is None:
        tables = [path for path in _files(folder) if path.suffix.lower() in TABLES and path.name not in OWN]
        telling = [path for path in tables if is_pair_table(path)]
        if len(telling) == 1:
            return table_pairs(telling[0], pool, prompt)
        if len(telling) > 1:
            names = ", ".join(path.name for path in telling)
            raise DataError(f"{folder}: holds several lists of pairs ({names}); name one of them")
        found = _alone(folder)
    if found is None:
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", "__"))]
        if len(inner) == 1 and inner[0].name.casefold() in ("train", "training", "data", "dataset"):
            return folder_pairs(inner[0], pool, prompt)
        raise DataError(_nothing(folder, inner))
    return _listed(found, table_captions(metadata) if metadata is not None else {}, folder, pool, prompt)


class Found:
    """The finds of a layout: the pairs by their names, and what is wrong."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.pairs: dict[str, tuple[tuple[Path, ...], Path | None]] = {}
        self.problems: list[str] = []
        self.words: list[Path] = []
        """Folders that may hold a pair's text under its name."""


def _by_sides(folder: Path) -> Found | None:
    """Two folders, or a folder of befores in or beside one of afters."""
    inner = _named(folder)
    before, after = _side(inner, BEFORE), _side(inner, AFTER)
    words = [path for name in WORDS for path in inner.get(name, ())]
    pictures = list_pictures(folder)
    if before and after and after[0] not in before:
        found = _joined(before, after[:1], deep=True)
    elif before and pictures:
        found = _joined(before, [folder], deep=False)
        found.layout = f"pictures with {_names(before)} beside them"
    elif pictures and (beside := _beside(folder)):
        found = _joined(beside, [folder], deep=True)
        found.layout = f"pictures with {beside[0]} beside them"
    elif before or (after and not pictures and after[0].name.casefold() not in ("images", "image", "img")):
        here, missing = (before, "target") if before else (after, "source")
        if [path for path in here if any(map(is_picture, path.rglob("*")))] and not pictures:
            raise DataError(f"{folder / missing}: no such folder, and {_names(here)} is only one side of pairs")
        return None
    else:
        return None
    found.words += [*words, folder]
    return found


def _named(folder: Path) -> dict[str, list[Path]]:
    """Return the folders in a folder by their names in small letters, without a number at the end."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "__")) and not is_picture(path):
            found.setdefault(re.sub(r"[_\- ]?\d+$", "", path.name.casefold()).replace("-", "_"), []).append(path)
    return found


def _side(inner: Mapping[str, Sequence[Path]], names: Iterable[str]) -> list[Path]:
    """Return the folders of one side: several where they are numbered, each with a reference more."""
    folders = next((list(inner[name]) for name in names if name in inner), [])
    twice = [name for name, count in Counter(path.name.casefold() for path in folders).items() if count > 1]
    if twice:
        raise DataError(
            f"{folders[0].parent}: holds two folders called {twice[0]!r} in another case; join or rename them"
        )
    return folders


def _beside(folder: Path) -> list[Path]:
    """Return ``x_control`` beside ``x``, or ``control`` beside ``images``."""
    own, siblings = folder.name.casefold(), _named(folder.absolute().parent)
    ends = [f"{own}_{name}" for name in BEFORE[:-1]]
    return _side(siblings, [*ends, *(BEFORE if own in AFTER else ())])


def _names(folders: Iterable[Path]) -> str:
    return ", ".join(f"{path.name}/" for path in folders)


def _joined(befores: Sequence[Path], afters: Sequence[Path], *, deep: bool) -> Found:
    found = Found(f"{_names(befores)} and {_names(afters)}")
    sources = [_by_stem(folder, deep, found.problems) for folder in befores]
    targets = _by_stem(afters[0], deep, found.problems)
    if not set(targets) & set(sources[0]):  # before/1_before.png and after/1_after.png
        sources = [_without_ends(side, 0) for side in sources]
        targets = _without_ends(targets, 1)
    numbered = _numbered(sources[0], targets)
    for stem in sorted({*targets, *(s for s in sources[0] if s not in numbered[1])}):
        own = tuple(side[stem] for side in sources if stem in side) or numbered[0].get(stem, ())
        if stem not in targets:
            found.problems.append(
                f"{sources[0][stem]}: has no after-picture of the same name in {afters[0]}; add it, or remove this one"
            )
        elif not own or (len(own) < len(befores) and stem not in numbered[0]):
            lacking = next((f for f, side in zip(befores, sources, strict=True) if stem not in side), befores[0])
            found.problems.append(
                f"{targets[stem]}: has no before-picture of the same name in {lacking}; add it, or remove this one"
            )
        else:
            found.pairs[stem] = own, targets[stem]
    if not found.pairs and not found.problems:
        raise DataError(f"{befores[0]}: holds no pictures")
    return found


def _numbered(sources: Mapping[str, Path], targets: Mapping[str, Path]) -> tuple[dict[str, tuple[Path, ...]], set[str]]:
    """Return the references ``1_0``, ``1_1`` of an after-picture ``1``, as musubi-tuner names them, and their stems."""
    groups: dict[str, list[str]] = {}
    for stem in sorted(sources):
        root = re.sub(r"_\d+$", "", stem)
        if stem not in targets and root in targets and root not in sources:
            groups.setdefault(root, []).append(stem)
    used = {stem for stems in groups.values() for stem in stems}
    return {root: tuple(sources[stem] for stem in stems) for root, stems in groups.items()}, used


def _by_stem(folder: Path, deep: bool, problems: list[str]) -> dict[str, Path]:
    """Return name without suffix -> picture; ``1.png`` beside ``1.jpg`` would hide one of the two."""
    found: dict[str, Path] = {}
    for path in _pictures(folder, deep):
        inside = path.relative_to(folder)
        stem = normalize("NFC", "--".join([*inside.parent.parts, inside.stem]))
        if stem in found:
            problems.append(f"{path}: {found[stem].name} has the same name; pairs go by it, so rename or remove one")
        else:
            found[stem] = path
    return found


def _pictures(folder: Path, deep: bool) -> Iterator[Path]:
    listed = sorted(folder.rglob("*")) if deep else sorted(folder.iterdir())
    for path in listed:
        if is_picture(path) and not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts[:-1]):
            yield path


def _without_ends(side: Mapping[str, Path], place: int) -> dict[str, Path]:
    ends = "|".join(pair[place] for pair in ENDS if len(pair[place]) > 1)
    return {re.sub(rf"[_\-. ](?:{ends})$", "", stem, flags=re.IGNORECASE): path for stem, path in side.items()}


def _by_ends(folder: Path) -> Found | None:
    """Names of one folder that end in the two sides."""
    pictures = list(_pictures(folder, deep=False))
    best: Found | None = None
    for ends in ENDS:
        found = _with_ends(pictures, ends)
        if found is not None and (best is None or len(found.pairs) > len(best.pairs)):
            best = found
    if best is not None:
        best.words.append(folder)
    return best


def _with_ends(pictures: Sequence[Path], ends: tuple[str, str]) -> Found | None:
    shapes = [re.compile(rf"(.+?)[_\-. ]{end}(\d*)$", re.IGNORECASE) for end in ends]
    found, taken = Found(f"names that end in _{ends[0]} and _{ends[1]}"), set()
    if len(ends[0]) == 1:
        found.layout = f"names that end in _{ends[0].upper()} (before) and _{ends[1].upper()} (after)"
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for path in pictures:
        for place, shape in enumerate(shapes):
            if match := shape.match(normalize("NFC", path.stem)):
                groups.setdefault(match[1], ([], []))[place].append(path)
                taken.add(path)
    whole = {root: group for root, group in groups.items() if group[0] and len(group[1]) == 1}
    if not whole or (len(ends[0]) == 1 and len(taken) < len(pictures)):
        return None
    for root, (before, after) in sorted(groups.items()):
        if root in whole:
            found.pairs[root] = tuple(before), after[0]
        else:
            there, side = (before, ends[1]) if before else (after, ends[0])
            wrong = f"has no _{side} beside it" if not (before and after) else f"has several _{ends[1]} beside it"
            found.problems.append(f"{there[0]}: {wrong}; add it, or remove this one")
    left = [path for path in pictures if path not in taken]
    found.problems += [f"{path}: ends neither in _{ends[0]} nor in _{ends[1]}; rename or remove it" for path in left]
    return found


def _alone(folder: Path) -> Found | None:
    """Pictures without after-pictures; captions beside such say what is on them, and not what to do."""
    found = Found("pictures alone, without after-pictures")
    found.pairs = {stem: ((path,), None) for stem, path in _by_stem(folder, False, found.problems).items()}
    return found if found.pairs else None


def _listed(found: Found, said: Mapping[str, str], folder: Path, pool: str, prompt: str) -> Listing:
    items, captions = [], 0
    for stem, (sources, target) in found.pairs.items():
        own = (
            None
            if target is None
            else _caption(stem, sources, target, found.words) or _said(said, folder, target, sources)
        )
        captions += own is not None
        items.append(Item(f"{pool}/{stem}", pool, sources, own or prompt, target))
    return Listing(found.layout, tuple(items), captions, tuple(found.problems))


def _caption(stem: str, sources: Sequence[Path], target: Path, words: Iterable[Path]) -> str | None:
    """Return the text beside the after-picture, else beside the before, else under the pair's name."""
    places = [path.with_suffix("") for path in (target, *sources)] + [folder / stem for folder in words]
    for place in places:
        for end in TEXTS:
            file = place.with_name(place.name + end)
            if not file.is_file():
                continue
            try:
                text = file.read_text(encoding="utf-8-sig").strip()
            except OSError:
                continue
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: is not UTF-8 ({error}): save it as UTF-8") from error
            if text:
                return text
    return None


def _said(said: Mapping[str, str], folder: Path, target: Path, sources: Sequence[Path]) -> str | None:
    if not said:
        return None
    names = (
        normalize("NFC", path.relative_to(folder).as_posix()) for path in (target, *sources) if folder in path.parents
    )
    return next((said[name] for name in names if name in said), None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _nothing(folder: Path, inner: Sequence[Path]) -> str:
    """Say what lies in a folder without pairs, and what would be accepted."""
    kinds = Counter(path.suffix.lower() or "without a suffix" for path in _files(folder) if path.name != "Thumbs.db")
    there = [f"{count} x {kind}" for kind, count in kinds.most_common(5)]
    if inner:
        there.append(
            f"{len(inner)} folders ({', '.join(path.name for path in inner[:4])}{', ...' if inner[4:] else ''})"
        )
    lies = f"there lie {', '.join(there)}" if there else "it is empty"
    own = [path.name for path in inner[:20] if _holds_pairs(path)]
    way = f"{', '.join(own[:4])} hold{'s' if len(own) == 1 else ''} pairs: name one; " if own else ""
    packed = [kind for kind in kinds if kind in (".zip", ".tar", ".gz", ".7z", ".rar", ".parquet", ".arrow")]
    way += f"unpack its {packed[0]} first; " if packed else ""
    return f"{folder}: holds no pairs: {lies}; {way}accepted are {ACCEPTED}"


def _holds_pairs(folder: Path) -> bool:
    try:
        return any(item.target for item in folder_pairs(folder, "", "").items)
    except (DataError, OSError):
        return False
