"""The paper's preference table: how often every system was the best, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cldistill_plugins.evaluation.study.agreement import fleiss_kappa, in_words
from cldistill_plugins.evaluation.study.answers import Answers
from cldistill_plugins.evaluation.study.key import StudyKey

DRAWS = 4000
LEVEL = 0.95
Votes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """The share of all votes that chose one system, with its interval, whose ends are None where there is none."""

    votes: int
    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Preference:
    """One question: a share a system, and the evaluators' agreement."""

    shares: Mapping[str, Share]
    votes: int
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None

    @property
    def agreement(self) -> str:
        """The agreement in a word."""
        return in_words(self.kappa)


@dataclass(frozen=True)
class StudyResult:
    """The counted answers of a study: made by `tally`, written and printed by the command ``study``."""

    evaluators: int
    sets: int
    questions: Mapping[str, Preference]

    def to_json(self, key: StudyKey, seed: int) -> dict[str, Any]:
        """Return plain data, with what it belongs to."""
        return {
            "format": 1,
            "study": key.study,
            "evaluation": key.evaluation,
            "evaluators": self.evaluators,
            "sets": self.sets,
            "seed": seed,
            "chance": 1 / len(key.systems),
            "questions": {name: _plain(preference) for name, preference in self.questions.items()},
        }


def _plain(found: Preference) -> dict[str, Any]:
    return {
        "votes": found.votes,
        "systems": {
            name: {"votes": share.votes, "mean": share.share, "low": share.low, "high": share.high}
            for name, share in found.shares.items()
        },
        "agreement": {"kappa": found.kappa, "low": found.kappa_low, "high": found.kappa_high, "word": found.agreement},
    }


def tally(key: StudyKey, answers: Sequence[Answers], seed: int = 0, draws: int = DRAWS) -> StudyResult:
    """Count the answers of all evaluators."""
    found = {
        question.name: prefer(
            votes_of(key, answers, question.name), [system.name for system in key.systems], seed, draws
        )
        for question in key.questions
    }
    return StudyResult(len(answers), len(key.sets), found)


def votes_of(key: StudyKey, answers: Sequence[Answers], question: str) -> Votes:
    """Return the votes as (evaluators, sets, systems): one where that system was chosen, else zero."""
    systems = [system.name for system in key.systems]
    votes = np.zeros((len(answers), len(key.sets), len(systems)))
    for row, one in enumerate(answers):
        for column, asked in enumerate(key.sets):
            choice = one.answers.get(asked.id, {}).get(question)
            if choice is not None:
                votes[row, column, systems.index(asked.candidates[choice])] = 1
    return votes


def prefer(votes: Votes, systems: Sequence[str], seed: int, draws: int = DRAWS) -> Preference:
    """Return the shares of ``votes`` (evaluators, sets, systems), with intervals by the bootstrap.

    Both evaluators and sets are drawn again, independently (the pigeonhole bootstrap; Owen 2007, "The pigeonhole
    bootstrap"): other people would have answered, and about other pictures.  Kappa is drawn over sets alone, for an evaluator
    drawn twice would agree with themselves.  Answers about one set alone say nothing about others: they get no interval.
    """
    total, asked = int(votes.sum()), int(votes.any(axis=(0, 2)).sum())
    counts = votes.sum(axis=(0, 1))
    generator = np.random.default_rng(seed)
    people, sets, _ = votes.shape
    drawn_people = generator.multinomial(people, np.full(people, 1 / people), size=draws)
    drawn_sets = generator.multinomial(sets, np.full(sets, 1 / sets), size=draws)
    drawn = np.einsum("de,ds,esk->dk", drawn_people, drawn_sets, votes, optimize=True)
    sums = drawn.sum(axis=1, keepdims=True)
    shares = drawn[sums[:, 0] > 0] / sums[sums[:, 0] > 0]
    low, high = _bounds(shares) if len(shares) else (np.zeros(len(systems)), np.ones(len(systems)))
    per_set = votes.sum(axis=0)
    kappas = [k for row in drawn_sets[: draws // 4] if (k := fleiss_kappa(np.repeat(per_set, row, axis=0))) is not None]
    several = asked != 1
    kappa_low, kappa_high = map(float, _bounds(np.array(kappas))) if kappas and several else (None, None)
    ends = [(float(low[i]), float(high[i])) if several else (None, None) for i in range(len(systems))]
    return Preference(
        {
            name: Share(int(counts[i]), float(counts[i] / total) if total else 0.0, *ends[i])
            for i, name in enumerate(systems)
        },
        total, fleiss_kappa(per_set), kappa_low, kappa_high,
    )  # fmt: skip


def _bounds(drawn: Votes) -> tuple[Votes, Votes]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high
