"""Shares of work: they add up to the whole, and are found in what a launcher or a Slurm array says."""

from __future__ import annotations

import pytest

from cldistill.errors import OptionsError
from cldistill_plugins.sharding.api import GROUP, WHOLE, Shard, take_shard


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_shares_add_up_to_the_whole_and_so_do_their_parts(count: int) -> None:
    work = list(range(11))
    shards = [Shard(number, count) for number in range(1, count + 1)]
    assert sorted(entry for shard in shards for entry in shard.every(work)) == work
    assert [entry for shard in shards for entry in shard.block(work)] == work
    assert [entry for shard in shards for part in (1, 2) for entry in shard.part(part, 2).block(work)] == work
    assert max(len(shard.block(work)) for shard in shards) - min(len(shard.block(work)) for shard in shards) <= 1


def array(task: int, first: int, last: int, count: int) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, WHOLE),
        ({"RANK": "2", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}, Shard(3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "16"}, Shard(5, 16)),
        (array(4, 1, 16, 16), Shard(4, 16)),
        (array(7, 3, 7, 2), Shard(2, 2)),  # two that were killed, submitted again
        (array(5, 5, 5, 1), WHOLE),
        (array(1, 0, 3, 4) | {"RANK": "1", "WORLD_SIZE": "2"}, Shard(4, 8)),
    ],
)
def test_a_share_is_found_in_the_environment(environment: dict[str, str], expected: Shard) -> None:
    if "RANK" not in environment:
        assert take_shard("3/4", dict(environment)) == Shard(3, 4)
        assert take_shard("1/1", dict(environment)) == WHOLE
    assert take_shard(None, environment) == expected
    assert not environment.keys() & set(GROUP)  # no process group is made


def test_ranks_divide_the_share_that_was_asked_for() -> None:
    found = [take_shard("2/3", {"RANK": str(rank), "WORLD_SIZE": "2"}) for rank in (0, 1)]
    assert [entry for shard in found for entry in shard.block(range(12))] == Shard(2, 3).block(range(12))


@pytest.mark.parametrize(
    ("visible", "shown"), [(None, "1"), ("4,6", "6"), ("GPU-a,GPU-b", "GPU-b"), ("5", "5"), ("", "")]
)
def test_a_process_of_several_on_a_machine_is_shown_its_own_gpu(visible: str | None, shown: str) -> None:
    environment = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert take_shard(None, environment) == Shard(2, 2)
    assert environment == {"CUDA_VISIBLE_DEVICES": shown}


@pytest.mark.parametrize("option", ["0/4", "5/4", "1", "1/0", "a/b", "-1/2"])
def test_what_is_no_share_is_refused(option: str) -> None:
    with pytest.raises(OptionsError, match=r"write K/N.*--shard 3/16"):
        take_shard(option, {})


def test_an_uneven_array_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"task 4 of a Slurm array of 3 from 3 to 9: .*--shard K/N"):
        take_shard(None, array(4, 3, 9, 3))
