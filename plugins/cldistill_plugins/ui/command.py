"""`cldistill ui`: what is asked for is judged, the model loaded, and the page served until Ctrl-C."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from cldistill.errors import PluginLoadError
from cldistill_plugins.generation.api import BaseOption, CollectionArgument, DeviceOption

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ui(
    collection: CollectionArgument,
    base: BaseOption = None,
    device: DeviceOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; by default this machine's own.")] = LOOPBACK[0],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; by default the first free from 7860 on.")] = None,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Whether to open the page in the browser.")] = True,
) -> None:  # fmt: skip
    """Open a collection in the browser: drop a picture, choose effects, compare before and after, save."""
    if find_spec("gradio") is None:
        raise PluginLoadError("`cldistill ui` needs gradio, which is not installed: pip install 'cldistill[ui]'")
    from cldistill.adapters.hub import local_path
    from cldistill_plugins.ui.studio import open_studio

    studio = open_studio(local_path(collection), base, device)
    if host not in LOOPBACK:
        typer.echo(
            f"Whoever reaches {host} can use this page and this machine's processor: it has no password.", err=True
        )
    typer.echo("Loading the model ...", err=True)
    studio.load()
    quiet()
    from cldistill_plugins.ui.serve import serve

    with serve(studio, host, port, browser) as address:
        typer.echo(f"{studio.title}: {address}  (Ctrl-C ends it)")
        wait()


def quiet() -> None:
    """Tell gradio to ask nobody on the network for anything; it reads this when it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def wait() -> None:
    """Sleep until somebody stops the program."""
    from threading import Event

    try:
        Event().wait()
    except KeyboardInterrupt:
        typer.echo("\nclosed")
