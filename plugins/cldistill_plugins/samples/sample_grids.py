"""The observer that draws a grid of held-out pictures now and then while a run trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.data.items import list_pictures, open_picture
from cldistill.manifest.models import Samples
from cldistill.markers import hookimpl
from cldistill.records import EffectInfo, StepResult
from cldistill.samples import RunSampler, SampledNetwork, grid_effects, grid_picture, held_out_rows, teacher_and_student
from cldistill.training.run import Run
from cldistill_plugins.samples.grids import GridRow, save_grid

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class SampleGrids:
    """Observer: every ``every`` steps a grid ``samples/step-000100.png``, a row an effect: source, teacher, student.

    Teachers do not change, so their pictures are made once.
    """

    samples: Samples | None
    """None: nothing is drawn."""
    teacher_steps: int = 40
    teacher: dict[str, Image] = field(default_factory=dict)
    """Effect -> its teacher's picture."""

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
            self._row(sampler, effect, grid_picture(pictures, index), teacher, student)
            for index, effect in enumerate(grid_effects(run.effects, samples.effects))
        ]
        columns = ["source", f"teacher · {teacher.evaluations} evaluations", f"student · {student.evaluations}"]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_grid(path, rows, columns, caption)

    def _row(
        self, sampler: RunSampler, effect: EffectInfo, picture: Path, teacher: SampledNetwork, student: SampledNetwork
    ) -> GridRow:
        rows = held_out_rows([picture], effect, sampler.run.prompts[effect.name])
        if effect.name not in self.teacher:
            (self.teacher[effect.name],) = sampler.pictures(teacher, rows)
        return GridRow(
            effect.name, [open_picture(picture), self.teacher[effect.name], *sampler.pictures(student, rows)]
        )
