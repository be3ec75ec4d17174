"""Targets ``y`` of the losses (arXiv 2605.25378, section 3.3): the teacher's own output on each source, sampled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from cldistill.data.dataset import Example
from cldistill.errors import DataError
from cldistill.precision import precision_key
from cldistill.progress.signals import never, raise_if_stopped
from cldistill.records import Prompts
from cldistill.sampling.image_generator import ImageGenerator, SamplingConfig
from cldistill.schedule import Schedule
from cldistill.storage.tensors import content_key
from cldistill.weights import AdapterState


@dataclass(frozen=True)
class TeacherSampler:
    """Fills the cache with teachers' targets; made with the base, and used while a run is prepared."""

    generator: ImageGenerator
    schedule: Schedule
    """Of teachers that have no few-step sampler of their own."""

    def key(self, example: Example, prompts: Prompts, digest: str) -> str:
        """Hash everything that a sampled target depends on: with guidance that is the unconditional prompt, too."""
        base, schedule = self.generator.base, self.schedule
        guided_by = [prompts.unconditional] if base.target_guidance_scale != 1.0 else []
        return content_key(
            "sampled-target", base.fingerprint, digest, prompts.teacher, self.generator.encoder.item_digest(example.item),
            example.item.key, schedule.steps, schedule.shift, base.target_guidance_scale, base.target_guidance_mode,
            self.generator.seed, *guided_by, *(() if schedule.terminal is None else (schedule.terminal,)), *precision_key(base),
        )  # fmt: skip

    def sample_missing(
        self, work: Sequence[tuple[Example, str]], teacher: Callable[[], AdapterState | None],
        advance: Callable[[int], None], stop: Callable[[], bool] = never,
    ) -> None:  # fmt: skip
        """Sample what the cache lacks of a teacher's targets, by (example, key), and keep it; `Stopped` between two batches."""
        cache = self.generator.encoder.cache
        missing = {index for index, (_, key) in enumerate(work) if not cache.is_sound(key)}
        advance(len(work) - len(missing))
        raise_if_stopped(stop, "sampling targets")
        if not missing:
            return
        config = SamplingConfig.of_teacher(teacher(), self.schedule)
        for chunk, latents, _ in self.generator.latents(config, [example for example, _ in work], missing):
            for index, latent in zip(chunk, latents, strict=True):
                if index in missing:
                    cache.get(work[index][1], lambda latent=latent: {"x0": latent})  # type: ignore[misc]
            advance(len(missing.intersection(chunk)))
            raise_if_stopped(stop, "sampling targets")

    def with_target(self, example: Example, key: str) -> Example:
        """Return the example with the cached target under ``key``."""
        cache = self.generator.encoder.cache

        def absent() -> dict[str, Tensor]:
            raise DataError(
                f"the sampled target of {example.item.key} has left the cache during the run, or was damaged there "
                f"({cache.path(key)}): run the same command again, it samples what is missing and goes on from "
                "the last checkpoint. Do not empty the cache while a run uses it"
            )

        return replace(example, target=lambda: cache.get(key, absent)["x0"])
