"""``editreward``: a reward model of instruction-guided edits (Wu et al., arXiv 2509.26346), by its published weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cldistill.component import BuildContext, LocalPath, ModelRef, Needs
from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured
from cldistill.protocols import Metric, MetricRequest
from cldistill.records import GENERAL, Column, MetricValues

from .editreward_prompts import RewardPrompts, read_prompts
from .models import ModelSettings, find_model, fingerprint, need, reason, see_model

if TYPE_CHECKING:
    from .editreward_network import Scorer

COLUMNS = {"editreward": Column("EditReward", "higher")}


class EditRewardSettings(ModelSettings):
    """Options of ``editreward``."""

    model: ModelRef = Field(
        "TIGER-Lab/EditReward-Qwen2.5-VL-7B", description="folder or hub repository with the reward model's weights"
    )
    base: ModelRef = Field(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        description="folder or hub repository with the config and processor of its backbone",
    )
    repository: LocalPath | None = Field(
        None, description="a checkout of TIGER-AI-Lab/EditReward, from which the prompts are read that the weights know"
    )
    dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="precision of the backbone; its heads are fp32"
    )


def describe_editreward(settings: EditRewardSettings) -> Needs:
    """Needs weights and a checkout; an evaluation goes on without them."""

    def look() -> None:
        _prompts(settings)
        see_model("torchvision", settings)
        if not settings.download:
            find_model(settings.base, download=False, weights=False)

    return Needs(lacks=reason(look))


def _prompts(settings: EditRewardSettings) -> RewardPrompts:
    if settings.repository is None:
        raise NotMeasured("give repository: a checkout of TIGER-AI-Lab/EditReward, whose prompts its weights know")
    return read_prompts(settings.repository)


def build_editreward(settings: EditRewardSettings, context: BuildContext) -> Metric:
    """Find everything; the weights are loaded when there is something to measure.  Raises `NotMeasured`."""
    prompts = _prompts(settings)
    need("torchvision", "cldistill[eval]")  # transformers' processor of Qwen2.5-VL asks for it
    weights = find_model(settings.model, download=settings.download, revision=settings.revision)
    base = find_model(settings.base, download=settings.download, weights=False)
    return EditReward(Files(weights, base, settings.dtype), prompts, context.device)


@dataclass(frozen=True)
class Files:
    """Files of the reward network, found by `build_editreward`, and the precision in which they are loaded."""

    weights: Path
    base: Path
    dtype: Literal["bfloat16", "float32"]


class EditReward:
    """Implements `cldistill.protocols.Metric`: every value is kept as soon as it is there, since each takes a while."""

    version: str = "1"
    """Of the code; that of an instance names the weights and the prompts, too.  Cached values go by it."""
    columns = COLUMNS
    cached_by: Literal["effect"] = "effect"

    def __init__(self, files: Files, prompts: RewardPrompts, device: str) -> None:
        self.files = files
        self.prompts = prompts
        self.device = device
        self.version = f"{EditReward.version} {fingerprint(files.weights)} {fingerprint(files.base)} {prompts.digest}"
        self._scorer: Scorer | None = None

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Score every output of the effects and of the general pool.  Raises `NotMeasured` where nothing can be loaded."""
        pools = [
            pool for pool in request.items if pool == GENERAL or pool in {effect.name for effect in request.effects}
        ]
        places = [(system, pool) for system, made in request.outputs.items() for pool in pools if pool in made]
        total = sum(len(request.outputs[system][pool]) for system, pool in places)
        found: dict[str, dict[str, MetricValues]] = {}
        done = 0
        try:
            for system, pool in places:
                values = []
                for index in range(len(request.outputs[system][pool])):
                    values.append(self._score(request, system, pool, index))
                    done += 1
                    request.advance(done / total)
                found.setdefault(system, {})[pool] = MetricValues({"editreward": values})
        finally:
            self._scorer = None  # the next metric may need the memory
        return found

    def _score(self, request: MetricRequest, system: str, pool: str, index: int) -> float:
        item = request.items[pool][index]
        source = item.sources[0]
        stat = source.stat()
        key = (request.digests[system][pool][index], str(source), stat.st_size, stat.st_mtime_ns, item.prompt)

        def score() -> float:
            return self._load().score(open_picture(source), request.outputs[system][pool][index], item.prompt)

        return float(request.remember(key, score))

    def _load(self) -> Scorer:
        if self._scorer is None:
            from .editreward_network import load_scorer

            self._scorer = load_scorer(self.files.weights, self.files.base, self.files.dtype, self.prompts, self.device)
        return self._scorer
