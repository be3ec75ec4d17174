"""The hooks of the seam.

Registration hooks take no arguments and return components; none is ``firstresult``: the manifest names the winner, so that
installing a package never changes a run.  Observer hooks only watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.component import Command, Component
from cldistill.markers import hookspec
from cldistill.records import StepResult

if TYPE_CHECKING:
    from cldistill import protocols
    from cldistill.manifest.checked import RunRequest
    from cldistill.training.run import ExportedRun, Run


class PluginHooks:
    """The hooks that a plugin module may implement; those of registration are called when the plugins are discovered."""

    @hookspec
    def register_base_models(self) -> Sequence[Component[Any, protocols.BaseModel]]:  # type: ignore[empty-body]
        """Return base models."""

    @hookspec
    def register_teacher_sources(self) -> Sequence[Component[Any, protocols.TeacherSource]]:  # type: ignore[empty-body]
        """Return teacher sources."""

    @hookspec
    def register_stream_routers(self) -> Sequence[Component[Any, protocols.StreamRouter]]:  # type: ignore[empty-body]
        """Return stream routers."""

    @hookspec
    def register_prompt_isolators(self) -> Sequence[Component[Any, protocols.PromptIsolator]]:  # type: ignore[empty-body]
        """Return prompt isolators."""

    @hookspec
    def register_loss_terms(self) -> Sequence[Component[Any, protocols.LossTerm]]:  # type: ignore[empty-body]
        """Return loss terms."""

    @hookspec
    def register_metrics(self) -> Sequence[Component[Any, protocols.Metric]]:  # type: ignore[empty-body]
        """Return metrics."""

    @hookspec
    def register_observers(self) -> Sequence[Component[Any, object]]:  # type: ignore[empty-body]
        """Return observers (trackers, displays): objects that implement some of `RunHooks`."""

    @hookspec
    def register_commands(self) -> Sequence[Command]:  # type: ignore[empty-body]
        """Return commands of the command line."""

    @hookspec
    def run_asked(self, request: RunRequest) -> None:
        """`cldistill run` was asked for a checked manifest, and nothing is prepared: an error here refuses it."""

    @hookspec
    def run_assembled(self, run: Run) -> None:
        """A run is prepared and about to train, without optimisers yet: called on every rank; the base may be sharded here."""


class RunHooks:
    """The hooks that an observer may implement: called on the main process only, results are ignored."""

    @hookspec
    def run_started(self, run: Run, start_step: int) -> None:
        """Training begins (or continues) at ``start_step`` generator steps done."""

    @hookspec
    def step_finished(self, run: Run, result: StepResult) -> None:
        """A generator step and its critic updates are done."""

    @hookspec
    def checkpoint_saved(self, run: Run, step: int, path: Path) -> None:
        """A checkpoint is complete on disk."""

    @hookspec
    def run_finished(self, run: Run, step: int, stopped: bool) -> None:
        """Training ended: all steps done, or ``stopped`` early by a signal with everything saved."""

    @hookspec
    def run_exported(self, run: Run, exported: ExportedRun) -> None:
        """The collection is on disk; base and slots are still loaded, the student's holding what was exported.

        An error here ends the command with its message, after all observers were called: the collection is safe by then.
        """

    @hookspec
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Training ended with an error."""
