"""The preference table as Markdown and for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cldistill_plugins.evaluation.bootstrap import ONE_PICTURE
from cldistill_plugins.evaluation.report.figures import MINUS, NOTHING, interval, number
from cldistill_plugins.evaluation.study.key import StudyKey
from cldistill_plugins.evaluation.study.preferences import Preference, Share, StudyResult

if TYPE_CHECKING:
    from rich.table import Table


def share_text(share: Share, between: str = " ") -> str:
    """Return ``49.9 % [45.1, 54.2]``."""
    ends = ONE_PICTURE if share.low is None else interval(share.low, share.high, percent=True)
    return f"{number(share.share, percent=True)}{between}{ends}"


def agreement_text(found: Preference, between: str = " ") -> str:
    """Return kappa with its name and its interval."""
    if found.kappa is None:
        return NOTHING
    ends = "" if found.kappa_low is None else f"[{_kappa(found.kappa_low)}, {_kappa(found.kappa_high)}]"
    return f"{_kappa(found.kappa)}, {found.agreement}{between}{ends}".rstrip()


def _kappa(value: float | None) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", MINUS) if value is not None else NOTHING


def caption(key: StudyKey, found: StudyResult) -> str:
    """Say what was counted."""
    return (
        f"{key.evaluation}: share of answers in which a system was the best of {len(key.systems)} "
        f"(chance {number(1 / len(key.systems), percent=True)}); {found.evaluators} evaluators, {found.sets} sets, "
        "95 % intervals over both. Agreement: Fleiss' kappa."
    )


def rows(key: StudyKey, found: StudyResult, between: str = " ") -> list[list[str]]:
    """Return the table: a row a question, a column a system, then the agreement; the first row is the head.

    ``between`` stands between a figure and its interval.
    """
    titles = {question.name: question.title for question in key.questions}
    head = ["Best in", *(system.label for system in key.systems), "Agreement"]
    body = [
        [
            titles[name],
            *(share_text(share, between) for share in preference.shares.values()),
            agreement_text(preference, between),
        ]
        for name, preference in found.questions.items()
    ]
    return [head, *body]


def markdown(key: StudyKey, found: StudyResult) -> str:
    """Return the table as Markdown."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows(key, found))
    lines = [head, ["---", *("---:" for _ in key.systems), "---"], *body]
    return caption(key, found) + "\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(key: StudyKey, found: StudyResult) -> Table:
    """Return the table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    head, *body = rows(key, found, "\n")
    title = f"{escape(key.evaluation)}: {found.evaluators} evaluators, {found.sets} sets"
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(head):
        made.add_column(escape(column), justify="right" if 0 < index <= len(key.systems) else "left")
    for row in body:
        made.add_row(*map(escape, row))
    return made
