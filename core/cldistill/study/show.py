"""The preference table as Markdown and for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cldistill.report.figures import NOTHING, interval, number
from cldistill.study.key import Key
from cldistill.study.preferences import Preference, Share, Tally

if TYPE_CHECKING:
    from rich.table import Table


def share_text(share: Share) -> str:
    """Return ``49.9 % [45.1, 54.2]``."""
    return f"{number(share.share, percent=True)} {interval(share.low, share.high, percent=True)}"


def agreement_text(found: Preference) -> str:
    """Return kappa with its interval and its name."""
    if found.kappa is None:
        return NOTHING
    return f"{found.kappa:.2f} {_rounded(found)}, {found.agreement}".replace("-", "\N{MINUS SIGN}")


def _rounded(found: Preference) -> str:
    if found.kappa_low is None or found.kappa_high is None:
        return ""
    return f"[{found.kappa_low:.2f}, {found.kappa_high:.2f}]"


def caption(key: Key, found: Tally) -> str:
    """Say what was counted."""
    return (
        f"{key.evaluation}: share of answers in which a system was the best of {len(key.systems)} "
        f"(chance {number(1 / len(key.systems), percent=True)}); {found.evaluators} evaluators, {found.sets} sets, "
        "95 % intervals over both. Agreement: Fleiss' kappa."
    )


def rows(key: Key, found: Tally) -> list[list[str]]:
    """Return the table: a row a question, a column a system, then the agreement; the first row is the head."""
    titles = {question.name: question.title for question in key.questions}
    head = ["Best in", *(system.label for system in key.systems), "Agreement"]
    body = [
        [titles[name], *(share_text(share) for share in preference.shares.values()), agreement_text(preference)]
        for name, preference in found.questions.items()
    ]
    return [head, *body]


def markdown(key: Key, found: Tally) -> str:
    """Return the table as Markdown."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows(key, found))
    lines = [head, ["---", *("---:" for _ in key.systems), "---"], *body]
    return caption(key, found) + "\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(key: Key, found: Tally) -> Table:
    """Return the table for the terminal."""
    from rich.table import Table

    head, *body = rows(key, found)
    made = Table(title=f"{key.evaluation}: {found.evaluators} evaluators, {found.sets} sets", title_justify="left")
    for index, title in enumerate(head):
        made.add_column(title, justify="right" if 0 < index <= len(key.systems) else "left")
    for row in body:
        made.add_row(*row)
    return made
