"""Public names of ``endpoint``, for the built-in plugins that ask a vision-language model; imports no HTTP client."""

from __future__ import annotations

from cldistill_plugins.endpoint.answers import MalformedAnswerError, read_json, without_thoughts
from cldistill_plugins.endpoint.client import Endpoint, NoUsableAnswerError
from cldistill_plugins.endpoint.parallel import in_parallel
from cldistill_plugins.endpoint.question import SIDE, ChatQuestion
from cldistill_plugins.endpoint.settings import Address, EndpointSettings, VariableName

__all__ = [
    "SIDE", "Address", "ChatQuestion", "Endpoint", "EndpointSettings", "MalformedAnswerError", "NoUsableAnswerError",
    "VariableName", "in_parallel", "read_json", "without_thoughts",
]  # fmt: skip
