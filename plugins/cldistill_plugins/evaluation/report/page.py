"""Pages that hold everything they show: templates, styles, our modules and the libraries' own, in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from cldistill.errors import CldistillError
from cldistill.storage.files import atomic_write_text, default_cache

if TYPE_CHECKING:
    from jinja2 import Environment

VEGA_LITE = "6.1"
"""The version whose specifications Altair 6 writes."""


REPORT = "cldistill_plugins.evaluation.report"
LIBRARIES = ("altair", "itables", "jinja2", "vl_convert")
"""The libraries that the extra ``report`` installs: the plots and tables that a page carries."""


def lacking() -> str | None:
    """Return the sentence that says why no page can be written on this machine; None where one can."""
    absent = [name for name in LIBRARIES if find_spec(name) is None]
    return f"no page without {', '.join(absent)}: pip install 'cldistill[report]'" if absent else None


def render(template: str, package: str = REPORT, **values: Any) -> str:
    """Fill a template of a package; everything that is not marked as safe is escaped."""
    return environment(package).get_template(template).render(**values)


@cache
def environment(package: str = REPORT) -> Environment:
    """Return the templates of a package, with those of the report behind them.

    A name that nobody gave is an error and no empty place.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, REPORT))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": False, "ensure_ascii": False, "separators": (",", ":")}
    made.globals.update(style=style, module_map=module_map, vega=vega, datatables_style=datatables_style)
    return made


def style(*names: str) -> Markup:
    """Return our style sheets, to stand inside ``<style>``; ``name`` is one of the report's, ``package:name`` another's."""
    return Markup("\n".join(_asset(name, "css") for name in names))


def module_map(*names: str, datatables: bool = False) -> Markup:
    """Return an import map by which inline modules import ours (``cldistill/NAME``) from the page itself."""
    sources = {f"cldistill/{name.rpartition(':')[2]}": _asset(name, "js") for name in names}
    if datatables:
        sources["datatables"] = _of_itables("dt_bundle.js")
    entries = (f'"{name}": "{_as_url(text)}"' for name, text in sources.items())
    return Markup('{"imports": {\n%s\n}}') % Markup(",\n".join(entries))


def vega() -> Markup:
    """Return Vega, Vega-Lite and vega-embed as one script, which leaves ``vegaEmbed`` in the window.

    The first page of a machine takes two seconds to bundle it; the others read it from the cache.
    """
    kept = default_cache() / "report" / f"vega-lite-{VEGA_LITE}-by-{version('vl-convert-python')}.js"
    if kept.is_file():
        return Markup(_inline(kept.read_text(encoding="utf-8")))
    import vl_convert

    script: str = vl_convert.javascript_bundle(vl_version=VEGA_LITE)
    with suppress(OSError):  # a page needs no cache that can be written
        atomic_write_text(kept, script)
    return Markup(_inline(script))


def datatables_style() -> Markup:
    """Return the styles of DataTables."""
    return Markup(_of_itables("dt_bundle.css"))


def as_text_blocks(texts: Iterable[tuple[str | int, str]]) -> Markup:
    """Return base64 texts as script elements ``picture-NAME``: the browser reads none before it is shown."""
    blocks = (f'<script type="text/plain" id="picture-{name}">{text}</script>' for name, text in texts)
    return Markup("\n".join(blocks))


@cache
def _asset(name: str, kind: str) -> str:
    package, _, stem = name.rpartition(":")
    return files(package or REPORT).joinpath("assets", f"{stem}.{kind}").read_text(encoding="utf-8")


@cache
def _of_itables(name: str) -> str:
    """Return a file of DataTables' bundle, which the package itables carries."""
    return files("itables").joinpath("html", name).read_text(encoding="utf-8")


def _as_url(script: str) -> str:
    return "data:text/javascript;base64," + base64.b64encode(script.encode()).decode("ascii")


def _inline(script: str) -> str:
    """Return a script that may stand between script tags.

    Raises:
        CldistillError: it holds what would end the element, as no release so far did.
    """
    if "</script" in script.lower() or "<!--" in script:
        raise CldistillError(
            "the installed vl-convert-python has a bundle that cannot stand inside a page; install another version of it"
        )
    return script
