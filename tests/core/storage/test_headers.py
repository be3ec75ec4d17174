"""Safetensors headers: read without their tensors, written anew, and refused where they are none."""

from __future__ import annotations

from io import BytesIO

import pytest
import torch
from safetensors.torch import load, save

from cldistill.storage.headers import NoHeaderError, read_tensors_header

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}


def test_a_header_says_what_the_file_holds_and_how_long_it_is() -> None:
    file = save(TENSORS, {"x": "1"})
    stream = BytesIO(file)
    header = read_tensors_header(stream)
    assert {name: entry["shape"] for name, entry in header.tensors.items()} == {"a": [2, 3], "b": [3]}
    assert dict(header.metadata) == {"x": "1"}
    assert header.size == len(file) and stream.tell() == header.start


def test_other_metadata_leave_the_tensors_as_they_are() -> None:
    file = save(TENSORS, {"x": "1"})
    header = read_tensors_header(BytesIO(file))
    other = header.encoded({"z": "ä", "y": "2"}) + file[header.start :]
    again = read_tensors_header(BytesIO(other))
    assert list(again.metadata.items()) == [("y", "2"), ("z", "ä")] and again.start % 8 == 0
    assert all(torch.equal(value, TENSORS[name]) for name, value in load(other).items())


@pytest.mark.parametrize("file", [b"", b"\x80\x02}q\x00.", b"\x01" + bytes(7) + b"{"])
def test_another_file_has_no_header(file: bytes) -> None:
    with pytest.raises(NoHeaderError):
        read_tensors_header(BytesIO(file))


@pytest.mark.parametrize("text", ["nope", "[1, 2]", '{"a": 1}', '{"a": {"dtype": "F32", "shape": [1]}}'])
def test_a_header_that_is_not_whole_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError) as error:
        read_tensors_header(BytesIO(len(text).to_bytes(8, "little") + text.encode()))
    assert not isinstance(error.value, NoHeaderError)
