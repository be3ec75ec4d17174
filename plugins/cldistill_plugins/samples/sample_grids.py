"""The observer that draws a grid of held-out pictures now and then while a run trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.data.items import list_pictures, open_picture
from cldistill.manifest.models import Samples
from cldistill.markers import hookimpl
from cldistill.protocols import KnowsTruth
from cldistill.records import StepResult
from cldistill.samples import Rows, RunSampler, SampledNetwork, grid_effects, shown_rows, teacher_and_student
from cldistill.training.run import Run
from cldistill_plugins.samples.grids import GridRow, save_grid, without_empty
from cldistill_plugins.samples.truths import true_output

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class SampleGrids:
    """Observer: every ``every`` steps a grid ``samples/step-000100.png``, a row an effect: source, truth, teacher, student.

    Teachers and truths do not change, so their pictures are made once.  There is no column of truths where none is known,
    and none of teachers where there are none.
    """

    samples: Samples | None
    """None: nothing is drawn."""
    teacher_steps: int = 40
    truths: Sequence[KnowsTruth] = ()
    untaught: frozenset[str] = frozenset()
    """Effects without a teacher, of which there is no picture by one."""
    same: dict[str, list[Image | None]] = field(default_factory=dict)
    """Effect -> its source, the truth where it is known, and its teacher's picture."""

    @hookimpl
    def step_finished(self, run: Run, result: StepResult) -> None:
        """Draw the grid when it is due."""
        if self.samples is not None and result.step % self.samples.every == 0:
            self.draw(
                run,
                self.samples,
                run.output / "samples" / f"step-{result.step:06d}.png",
                f"{run.name} · step {result.step}",
            )

    def draw(self, run: Run, samples: Samples, path: Path, caption: str) -> None:
        """Write the grid of the student as it stands."""
        assert run.preparation is not None
        sampler = RunSampler(run, run.preparation.encoder)
        pictures = list_pictures(samples.images)
        teacher, student = teacher_and_student(run, self.teacher_steps)
        rows = [
            self._row(
                sampler, effect.name, shown_rows(effect, run.prompts[effect.name], pictures, index), teacher, student
            )
            for index, effect in enumerate(grid_effects(run.effects, samples.effects))
        ]
        columns = [
            "source", "true effect", f"teacher · {teacher.evaluations} evaluations", f"student · {student.evaluations}",
        ]  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        save_grid(path, *without_empty(rows, columns), caption)

    def _row(
        self, sampler: RunSampler, effect: str, rows: Rows, teacher: SampledNetwork, student: SampledNetwork
    ) -> GridRow:
        ((item, _),), (made,) = rows, sampler.pictures(student, rows)
        if effect not in self.same:
            taught = None if effect in self.untaught else sampler.pictures(teacher, rows)[0]
            self.same[effect] = [open_picture(item.sources[0]), true_output(self.truths, item, made.size), taught]
        return GridRow(effect, [*self.same[effect], made])
