"""Pictures of a run: labelled grids while it trains, and the one that it ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.data.encodings import Encoder
from cldistill.data.items import open_picture
from cldistill.held_out import grid_effects, grid_picture, held_out_rows
from cldistill.markers import hookimpl
from cldistill.records import EffectInfo, StepResult
from cldistill.sampling.grids import Row, save_grid
from cldistill.systems import Studio, System, systems_of
from cldistill.training.run import Run

if TYPE_CHECKING:
    from PIL.Image import Image


class SampleGrids:
    """Observer: every ``every`` steps a grid ``samples/step-000100.png``, a row an effect: source, teacher, student.

    Teachers do not change, so their pictures are made once.
    """

    def __init__(
        self,
        encoder: Encoder,
        pictures: Sequence[Path],
        every: int,
        effects: Sequence[str] | None,
        teacher_steps: int = 40,
    ) -> None:
        self.encoder = encoder
        self.pictures = pictures
        self.every = every
        self.effects = effects
        self.teacher_steps = teacher_steps
        self._teacher: dict[str, Image] = {}

    @hookimpl
    def step_finished(self, run: Run, result: StepResult) -> None:
        """Draw the grid when it is due."""
        if result.step % self.every == 0:
            self.draw(run, run.output / "samples" / f"step-{result.step:06d}.png", f"{run.name} · step {result.step}")

    def draw(self, run: Run, path: Path, caption: str) -> None:
        """Write the grid of the student as it stands."""
        studio = Studio(run, self.encoder)
        _, teacher, _, student = systems_of(run, self.teacher_steps)
        rows = [
            self._row(studio, effect, index, teacher, student)
            for index, effect in enumerate(grid_effects(run.effects, self.effects))
        ]
        columns = ["source", f"teacher · {teacher.evaluations} evaluations", f"student · {student.evaluations}"]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_grid(path, rows, columns, caption)

    def _row(self, studio: Studio, effect: EffectInfo, index: int, teacher: System, student: System) -> Row:
        picture = grid_picture(self.pictures, index)
        rows = held_out_rows([picture], effect, studio.run.prompts[effect.name])
        if effect.name not in self._teacher:
            self._teacher[effect.name] = studio.pictures(teacher, rows)[0]
        return Row(effect.name, [open_picture(picture), self._teacher[effect.name], studio.pictures(student, rows)[0]])
