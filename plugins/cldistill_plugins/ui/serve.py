"""The page's web server: on an address of this machine, until the block that it is opened in ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cldistill.errors import CollectionError
from cldistill_plugins.ui.studio import Studio


@contextmanager
def serve(studio: Studio, host: str, port: int | None, browser: bool) -> Iterator[str]:
    """Serve the page and yield its address.

    Raises:
        CollectionError: the port is taken, or the address is not one of this machine.
    """
    from cldistill_plugins.ui.page import HEAD, build_page, style, theme

    page = build_page(studio)
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, inbrowser=browser, prevent_thread_lock=True, quiet=True, share=False,
            show_error=True, footer_links=[], allowed_paths=[str(studio.folder)], ssr_mode=False, pwa=False,
            theme=theme(), css=style(studio), head=HEAD, max_file_size="200mb", enable_monitoring=False,
        )  # fmt: skip
    except OSError as error:
        raise CollectionError(
            f"cannot listen on {host}{f':{port}' if port else ''} ({error}); another --port, or none, may be free"
        ) from error
    try:
        yield str(address)
    finally:
        page.close(verbose=False)
        studio.close()
