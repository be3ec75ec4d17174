"""Options of a component that asks an OpenAI-compatible endpoint.  No torch and no HTTP client is imported."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from cldistill.component import Settings


def _check_endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # .port checks its range
        raise ValueError("must be an http(s) address, e.g. http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("must hold no key, password or query: name an environment variable in api_key_env instead")
    return url


Address = Annotated[str, AfterValidator(_check_endpoint)]
"""Base address of an API; a key in it is an error, since options are written to files."""
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Name of an environment variable."""


class EndpointSettings(Settings):
    """Options of an `Endpoint`: server, model, patience; the key itself is never one."""

    endpoint: Address = Field(description="base address of an OpenAI-compatible API, e.g. http://localhost:8000/v1")
    model: str = Field(min_length=1, description="name of the model there")
    api_key_env: VariableName | None = Field(None, description="NAME of the environment variable with the key")
    timeout: float = Field(60.0, gt=0, description="seconds for one request")
    retries: int = Field(4, ge=0, le=20, description="further attempts after the first")
    temperature: float | None = Field(0.0, ge=0, description="sampling temperature; null leaves it to the server")
    json_mode: bool = Field(False, description="ask the server to force JSON (response_format: json_object)")
    concurrency: int = Field(4, ge=1, le=64, description="questions under way at the same time")
