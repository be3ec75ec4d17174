"""Bad cases, failure families, subject consistency, bleeding and recognition, by hand."""

from __future__ import annotations

import pytest
import torch

from cldistill_plugins.effectbench.metrics.bad_case import (
    GENERALISATION_COLLAPSE,
    STYLE_INTERFERENCE,
    TEXTURE_AND_DETAIL_LOSS,
    detail_ratio,
    judge,
)
from cldistill_plugins.effectbench.metrics.bleeding import bleeding
from cldistill_plugins.effectbench.metrics.recognition import Recogniser
from cldistill_plugins.effectbench.metrics.style_statistics import channel_statistics, style_of_levels
from cldistill_plugins.effectbench.metrics.subject import consistency

SOURCE_TO = {"oil": 0.5, "ink": 0.6, "frame": 0.3}


@pytest.mark.parametrize(
    ("to_truths", "to_source", "bad", "family", "nearest"),
    [
        ({"oil": 0.1, "ink": 0.4, "frame": 0.5}, 0.4, False, None, "oil"),
        ({"oil": 0.3, "ink": 0.2, "frame": 0.5}, 0.4, True, STYLE_INTERFERENCE, "ink"),
        ({"oil": 0.3, "ink": 0.4, "frame": 0.5}, 0.2, True, GENERALISATION_COLLAPSE, None),
        # The nearest of all is another effect's truth, but the source itself is nearer to that: nothing is near.
        ({"oil": 0.9, "ink": 0.8, "frame": 0.4}, 0.7, True, GENERALISATION_COLLAPSE, "frame"),
        # A tie is decided for the effect.
        ({"oil": 0.2, "ink": 0.2, "frame": 0.5}, 0.2, False, None, "oil"),
    ],
)
def test_a_bad_case_is_nearer_to_something_else(
    to_truths: dict[str, float], to_source: float, bad: bool, family: str | None, nearest: str | None
) -> None:
    found = judge("oil", to_truths, to_source, SOURCE_TO, detail=1.0)
    assert (found.bad, found.family, found.nearest, found.soft) == (bad, family, nearest, False)


def test_the_right_effect_without_its_detail_is_soft_and_no_bad_case() -> None:
    near = {"oil": 0.1, "ink": 0.4}
    soft = judge("oil", near, 0.4, SOURCE_TO, detail=0.49)
    assert soft.soft and not soft.bad and soft.family == TEXTURE_AND_DETAIL_LOSS
    assert judge("oil", near, 0.4, SOURCE_TO, detail=0.51).family is None
    assert judge("oil", near, 0.4, SOURCE_TO, detail=0.51, soft=0.6).soft
    assert judge("oil", near, 0.4, SOURCE_TO).family is None
    # A bad case keeps its own family however soft it is.
    assert judge("oil", {"oil": 0.3, "ink": 0.2}, 0.4, SOURCE_TO, detail=0.1).family == STYLE_INTERFERENCE


def test_detail_is_measured_by_the_geometric_mean_of_the_draws() -> None:
    assert detail_ratio(1.0, [1.0, 4.0]) == pytest.approx(0.5)


def test_consistency_lies_between_the_truth_and_another_subject() -> None:
    assert consistency(0.2, truth=0.2, unrelated=0.6) == 5.0
    assert consistency(0.6, truth=0.2, unrelated=0.6) == 1.0
    assert consistency(0.4, truth=0.2, unrelated=0.6) == pytest.approx(3.0)
    assert consistency(0.1, truth=0.2, unrelated=0.6) == 5.0 and consistency(0.9, truth=0.2, unrelated=0.6) == 1.0


def test_an_effect_that_erases_the_subject_has_no_score() -> None:
    assert consistency(0.4, truth=0.59, unrelated=0.6) is None
    assert consistency(0.4, truth=0.7, unrelated=0.6) is None


def test_bleeding_is_the_share_of_the_way_to_the_truth() -> None:
    # On a line from the source at 0 to the truth at 2: outputs at 0, 2, 1, 3 and -1.
    places = (0.0, 2.0, 1.0, 3.0, -1.0)
    assert [bleeding((y - 2) ** 2, y**2, 4.0) for y in places] == [0.0, 1.0, 0.5, 1.0, 0.0]
    # Off the line: what is edited in another direction shows nothing; a scattered draw around the truth shows all of it.
    assert bleeding(to_truth=4.0 + 9.0, to_source=9.0, source_to_truth=4.0) == 0.0
    assert bleeding(to_truth=9.0, to_source=4.0 + 9.0, source_to_truth=4.0) == 1.0
    with pytest.raises(ValueError, match="equal to its truth"):
        bleeding(0.1, 0.1, 0.0)


def test_the_nearest_centroid_wins_in_units_of_the_spread_within_effects() -> None:
    # The first dimension tells the two effects apart but is small; the second is large and only content.
    oil = [torch.tensor([[0.0, 40.0]]), torch.tensor([[0.1, -40.0], [0.3, -40.0]])]
    ink = [torch.tensor([[1.0, 30.0]]), torch.tensor([[1.2, -50.0]])]
    known = Recogniser({"oil": oil, "ink": ink})
    assert known.names(torch.tensor([[0.2, -30.0], [1.1, 30.0]])) == ["oil", "ink"]


def test_what_goes_together_within_effects_is_discounted() -> None:
    # Content moves both dimensions together, the effect the second alone: plain distances would say the opposite.
    content = [-6.0, -2.0, 2.0, 6.0]
    known = Recogniser({name: [torch.tensor([[c, c + d]]) for c in content] for name, d in (("oil", 0), ("ink", 6))})
    assert known.names(torch.tensor([[4.5, 4.5], [-4.5, 1.5]])) == ["oil", "ink"]


def test_one_other_picture_is_enough_to_be_recognised_by_and_offsets_do_not_matter() -> None:
    known = Recogniser({"oil": [torch.tensor([[1e4, 0.0]])], "ink": [torch.tensor([[1e4, 1e-2]])]})
    assert known.names(torch.tensor([[1e4, 8e-3]])) == ["ink"]


def test_channel_statistics_are_means_and_deviations_over_places() -> None:
    maps = torch.tensor([[[1.0, 5.0], [3.0, 5.0]]])
    assert channel_statistics(maps).tolist() == [[2.0, 5.0, 1.0, 0.0]]
    # Features of LPIPS are divided by the root of the places, here 2; the statistics are not.
    found = style_of_levels([maps.flatten(1)], [2])
    assert torch.allclose(found, torch.tensor([[2.0, 5.0, 1.0, 0.0]]) * 2**0.5)
