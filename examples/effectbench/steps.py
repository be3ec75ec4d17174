"""The steps of EffectBench: what each runs, what it needs first, and what it costs.

A step is a command line in the working folder.  Nothing here runs anything: `run.py` does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cldistill_plugins.effectbench.api import bank_of

PYTHON = (sys.executable, "-m")
CLI = (*PYTHON, "cldistill")
ABLATIONS = ("pdsr", "aop", "ts", "no-pdsr", "own")
"""Table 3's rows beside ours, by the ends of their recipes' names."""
COARSE = {"pdsr": "coarse-no-aop", "aop": "coarse", "ts": "coarse", "no-pdsr": "coarse-no-pdsr", "own": "coarse"}
"""Which coarse half each ablation goes on from."""
OWN = "effectbench-own"
"""The recipe of the second half in which each effect's own LoRA is its teacher."""


@dataclass(frozen=True)
class Size:
    """How large an EffectBench is run."""

    name: str
    effects: int
    """Effects of Tables 1, 3 and 5."""
    added: int
    """Effects that Table 5 adds one by one: the catalogue's next ones."""
    scaling: Sequence[int]
    """Further sizes of Table 4."""
    teacher_steps: int
    coarse_steps: int
    full_steps: int
    lightning_steps: int
    add_steps: tuple[int, int]
    """Steps of an addition, and how many of them are its first phase's."""
    art: int
    photos: int
    """Test pictures: held-out art, and photos (none of the kind was ever trained on)."""
    queries: int
    compositions: int
    sampling_steps: int = 40
    """Steps of the teachers, where they are measured."""
    extra: Sequence[str] = ()
    """Further ``--set`` of every training run."""
    general: int | None = None
    """General instructions that are measured; None: all held-out ones."""
    split: int = 0
    """A larger bank that `cldistill group` splits by measured interference, for Table 2; none of it is trained."""
    trained_groups: int = 0
    """A bank that is split into two collections which are then trained."""
    levers: int = 0
    """Effects on which the method's levers are compared at equal seconds; one of the sizes of Table 4."""
    lever_seconds: int = 0
    """Seconds of one core that each of them trains."""
    table1: str = "table1"
    """Name of Table 1's results."""
    samples: bool = True
    """False: no pictures are drawn while students train."""


FEW = "general.instructions=package:cldistill_plugins.miniature/general/general-held-out.jsonl"
SMOKE = Size(
    "smoke", 3, 1, (), 2, 2, 2, 1, (2, 1), 2, 0, 12, 1, 2,
    ("train.batch_size=2", "targets.steps=2", "sampler.steps=3", FEW), 2, samples=False,
)  # fmt: skip
LAPTOP = Size(
    "laptop", 50, 4, (10, 20), 400, 25000, 600, 100, (340, 260), 12, 12, 200, 20, split=100, trained_groups=20, levers=10,
    lever_seconds=240,
)  # fmt: skip
TEN = replace(
    LAPTOP, name="ten", effects=10, added=2, scaling=(), coarse_steps=5000, split=0, trained_groups=0, levers=0, table1="ten",
)  # fmt: skip
"""Ten effects, for which an hour and a half of two cores is enough."""
FULL = replace(
    LAPTOP, name="full", scaling=(10, 20, 100, 180), teacher_steps=2000, lightning_steps=300,
    compositions=50, trained_groups=100, lever_seconds=1200,
)  # fmt: skip
GPU = replace(FULL, name="gpu", extra=("train.batch_size=32",))
"""As ``full``, with batches that a GPU does not notice; several of these small runs fit on one at once (``--jobs``)."""
SIZES = {size.name: size for size in (SMOKE, TEN, LAPTOP, FULL, GPU)}


@dataclass(frozen=True)
class Lever:
    """A change of the method, to be compared with it at equal seconds."""

    title: str
    seconds: float
    """Of one core, a cycle on ten effects.  None has been measured: 1 for all compares them at equal *steps*."""
    values: Sequence[str] = ()
    """Its ``--set``."""
    recipe: str = "effectbench"


def _losses(*more: str, tau_min: int = 0) -> str:
    own = (
        "{use: ta-fm, streams: [effect], weight: 0.5}",
        "{use: bs-dmd, streams: [effect, general]}",
        f"{{use: ts-dmd, streams: [effect], options: {{tau_max: 750, tau_min: {tau_min}}}}}",
        "{use: fake-score}",
    )
    return f"losses=[{', '.join([*own, *more])}]"


LEVERS = {
    "one": Lever("as it is: one effect a batch", 1.0),
    "fresh": Lever("fresh noise at every step, the paper's sampler", 1.0, ("sampler.stochastic=true",)),
    "bounded": Lever("TS-DMD's scores above 500 alone, as in the paper", 1.0, (_losses(tau_min=500),)),
    "own": Lever("each effect's own LoRA for a teacher, as in the paper", 1.0, recipe=OWN),
    "taught": Lever("and its pictures for targets, the paper's default", 1.0, ("targets.from=teacher",), recipe=OWN),
    "mixed": Lever("an effect an item", 1.0, ("router.options.one_effect_a_batch=false",)),
    "trajectory": Lever("one trajectory a cycle", 1.0, ("slots.critic.reuse_sample=trajectory",)),
    "gan": Lever(
        "with DMD2's GAN term",
        1.0,
        (_losses("{use: gan, streams: [effect], weight: 0.003}", "{use: gan-head, streams: [effect], weight: 0.01}"),),
    ),
    "imitate": Lever(
        "with on-policy imitation of the teacher", 1.0, (_losses("{use: recall, streams: [effect], weight: 1.0}"),)
    ),
}
LEVER_SEEDS = (0, 1)
RESERVE = "reserve"
"""Training pictures of no pair, on which effects are admitted and levers judged: nothing is chosen on held-out ones."""


@dataclass(frozen=True)
class Step:
    """One command, after those that it needs."""

    name: str
    command: Sequence[str]
    needs: Sequence[str] = ()
    threads: int = 1
    """Threads that it may use; a step of more than one runs alone."""
    note: str = field(default="", compare=False)


def all_steps(size: Size) -> list[Step]:
    """Return every step of a size, in an order in which each comes after what it needs."""
    return [
        *preparation(size), *trainings(size), *growing(size), *measurements(size), *grouping(size), *looking(size),
        *scaling(size), *levers(size),
    ]  # fmt: skip


def sets(*values: str) -> list[str]:
    """Return ``--set`` options."""
    return [word for value in values for word in ("--set", value)]


def bank_file(effects: int) -> str:
    """Return the list of the first effects, as `bank` writes it."""
    return f"bank/effects-{effects}.yaml"


def preparation(size: Size) -> list[Step]:
    """Bank, test pictures, teachers."""
    total = max(size.effects + size.added, *size.scaling, 0)
    bank = (*PYTHON, "cldistill_plugins.effectbench.bank", "bank", "--effects", str(total), "--lists")
    sizes = [str(n) for n in sorted({size.effects, total, *size.scaling})]
    pictures = (*PYTHON, "cldistill_plugins.effectbench.bank.pictures", "pictures")
    teachers = (
        *CLI,
        "teachers",
        "effectbench-coarse",
        "--export",
        "teachers",
        *sets(f"effects={bank_file(total)}", *_teacher(size)),
    )
    return [
        Step("bank", (*bank, *sizes), threads=2),
        Step("pictures", (*pictures, "--art", str(size.art), "--photos", str(size.photos))),
        Step("reserve", (*pictures[:-1], RESERVE, "--reserve")),
        Step("teachers", teachers, ("bank",), threads=2),
    ]


def _teacher(size: Size) -> list[str]:
    return [f"teacher.options.steps={size.teacher_steps}", *_samples(size)]


def _samples(size: Size) -> list[str]:
    return [] if size.samples else ["samples=null"]


def train(
    size: Size, recipe: str, output: str, *values: str, effects: int | None = None, after: str | None = None
) -> tuple[str, ...]:
    """Return the command of one training run of this size; ``after``: the run of the half that it goes on from."""
    half = f"runs/{after}/collection"
    taught = (
        [f"teacher.options.path={half}", *_samples(size)] if after is not None and recipe != OWN else _teacher(size)
    )
    begun = [f"slots.student.init={half}"] if after is not None else []
    common = [f"effects={bank_file(effects or size.effects)}", *taught, *begun, *size.extra, *values]
    return (*CLI, "run", recipe, "--output", f"runs/{output}", *sets(*common))


def coarse(size: Size, steps: int | None = None) -> list[str]:
    """Return the overrides of a coarse half."""
    steps = steps or size.coarse_steps
    warmup = "slots.student.lr.0.warmup=20" if steps > 40 else "slots.student.lr.0.warmup=0"
    return [f"train.generator_steps={steps}", f"router.options.mixed_until={steps}", warmup]


def trainings(size: Size) -> list[Step]:
    """All students of Tables 1 and 3, and the acceleration LoRA."""
    steps = [
        Step(f"train-{name}", train(size, f"effectbench-{name}", f"effectbench-{name}", *coarse(size)), ("teachers",))
        for name in ("coarse", "fm", "coarse-no-aop", "coarse-no-pdsr")
    ]
    lightning = [f"train.generator_steps={size.lightning_steps}", *size.extra]
    command = (*CLI, "run", "effectbench-lightning", "--output", "runs/effectbench-lightning", *sets(*lightning))
    full = f"train.generator_steps={size.full_steps}"
    return [
        *steps,
        Step("train-lightning", command),
        Step(
            "train-ours", train(size, "effectbench", "effectbench", full, after="effectbench-coarse"), ("train-coarse",)
        ),
        *_second_seed(size, full),
        *(
            Step(
                f"train-{name}",
                train(size, f"effectbench-{name}", f"effectbench-{name}", full, after=f"effectbench-{COARSE[name]}"),
                (f"train-{COARSE[name]}",),
            )
            for name in ABLATIONS
        ),
    ]


def _second_seed(size: Size, full: str) -> list[Step]:
    """Return both halves of ours once more, from another seed: what a claim of Table 1 hangs on is measured twice."""
    name = "effectbench-seed-1"
    half = f"{name}-coarse"
    first = train(size, "effectbench-coarse", half, *coarse(size), "train.seed=1", "samples=null")
    second = train(size, "effectbench", name, full, "train.seed=1", f"name={name}", "samples=null", after=half)
    return [
        Step("train-coarse-seed-1", first, ("teachers",)),
        Step("train-ours-seed-1", second, ("train-coarse-seed-1",)),
    ]


def scaling(size: Size) -> list[Step]:
    """Table 4's further sizes: a coarse half in proportion to the effects, then the same full steps."""
    steps = []
    for count in size.scaling:
        share = max(1, size.coarse_steps * count // size.effects)
        flow = train(
            size, "effectbench-fm", f"effectbench-fm-{count}", *coarse(size, share), "samples=null", effects=count
        )
        steps += [
            *_student(size, count, str(count), share),
            Step(f"train-fm-{count}", flow, ("teachers",)),
            _table4(size, count),
        ]
    return [*steps, *_long(size, min(size.scaling))] if size.scaling else steps


def _student(size: Size, count: int, name: str, coarse_steps: int) -> list[Step]:
    """Both halves of a student of ``count`` effects; ``name`` ends the names of runs and steps."""
    half = f"effectbench-coarse-{name}"
    full = (f"train.generator_steps={size.full_steps}", f"name=effectbench-{name}", "samples=null")
    first = train(size, "effectbench-coarse", half, *coarse(size, coarse_steps), "samples=null", effects=count)
    second = train(size, "effectbench", f"effectbench-{name}", *full, effects=count, after=half)
    return [
        Step(f"train-coarse-{name}", first, ("teachers",)),
        Step(f"train-ours-{name}", second, (f"train-coarse-{name}",)),
    ]


def _long(size: Size, count: int) -> list[Step]:
    """What is short, and of which half?  The smallest bank again: with all the coarse steps of the large one, and with three
    times the full steps."""
    name = f"{count}-long"
    systems = [
        {"name": "teacher", "title": "Base", "adapter": "teacher", "steps": size.sampling_steps},
        {"name": "ours", "title": "Ours", "adapter": f"run:effectbench-{count}"},
        {"name": "coarse-long", "title": "coarse half alone, longer", "adapter": f"run:effectbench-coarse-{name}"},
        {"name": "ours-long", "title": "Ours, longer coarse half", "adapter": f"run:effectbench-{name}"},
        {"name": "ours-full", "title": "Ours, three times the full steps", "adapter": f"run:effectbench-{count}-full"},
    ]
    compare = [
        [a, b] for a, b in (("ours", "teacher"), ("ours-long", "ours"), ("ours-full", "ours"), ("ours-full", "teacher"))
    ]
    saved = f"runs/effectbench-{count}/checkpoints/step-{size.full_steps:06d}"
    on = [f"slots.{slot}.{key}" for slot in ("student", "critic") for key in (f"checkpoint={saved}", "init=null")]
    more = (f"train.generator_steps={2 * size.full_steps}", f"name=effectbench-{count}-full", "samples=null", *on)
    values = (f"evaluate.systems={json.dumps(systems)}", f"evaluate.compare={json.dumps(compare)}")
    return [
        *_student(size, count, name, size.coarse_steps),
        Step(
            f"train-ours-{count}-full",
            train(
                size,
                "effectbench",
                f"effectbench-{count}-full",
                *more,
                effects=count,
                after=f"effectbench-coarse-{count}",
            ),
            (f"train-ours-{count}",),
        ),
        Step(
            f"long-{count}",
            evaluate(size, "effectbench-table4", f"long-{count}", *values, effects=count),
            (f"train-ours-{count}-full", f"train-ours-{name}", "pictures"),
        ),
    ]


def levers(size: Size) -> list[Step]:
    """Return the full half of a small bank with and without each lever, for equal seconds and two seeds; and the measure."""
    if not size.levers:
        return []
    half = f"effectbench-coarse-{size.levers}"
    steps, systems = (
        [],
        [{"name": "coarse", "title": "coarse half", "adapter": f"run:{half}"}],
    )
    for name, lever in LEVERS.items():
        for seed in LEVER_SEEDS:
            output = f"lever-{name}-{seed}"
            values = [
                f"train.generator_steps={max(1, round(size.lever_seconds / lever.seconds))}", f"train.seed={seed}",
                f"name={output}", "samples=null", *lever.values,
            ]  # fmt: skip
            command = train(size, lever.recipe, output, *values, effects=size.levers, after=half)
            steps.append(Step(f"train-{output}", command, (f"train-coarse-{size.levers}",)))
            systems.append({"name": f"{name}-{seed}", "title": lever.title, "adapter": f"run:{output}"})
    systems.append({"name": "teacher", "title": "Base", "adapter": "teacher", "steps": size.sampling_steps})
    compare = [[f"{name}-{seed}", f"one-{seed}"] for name in LEVERS if name != "one" for seed in LEVER_SEEDS]
    values = (
        f"evaluate.images={RESERVE}", "evaluate.pictures=12", f"evaluate.systems={json.dumps(systems)}",
        f"evaluate.compare={json.dumps(compare)}",
    )  # fmt: skip
    measured = evaluate(size, "effectbench-table4", "levers", *values, effects=size.levers)
    return [*steps, Step("levers", measured, (*(step.name for step in steps), "reserve"))]


def growing(size: Size) -> list[Step]:
    """Table 5: one effect after the other, each from the collection before; the old effects' teachers are not used."""
    steps, before, needed = [], "runs/effectbench/collection", "train-ours"
    for number, name in enumerate(added_names(size), start=size.effects + 1):
        output = f"runs/effectbench-{number}"
        command = (*CLI, "add", before, f"bank/{name}", "--output", output)
        steps_of_it = ("--steps", str(size.add_steps[0]), "--mixed", str(size.add_steps[1]), "--no-measure")
        steps.append(Step(f"add-{number}", (*command, *steps_of_it), (needed,)))
        before, needed = f"{output}/collection", f"add-{number}"
    return steps


def added_names(size: Size) -> list[str]:
    """Return the names of the effects that are added."""
    return [effect.name for effect in bank_of(size.effects + size.added)[size.effects :]]


def evaluate(size: Size, recipe: str, output: str, *values: str, effects: int | None = None) -> tuple[str, ...]:
    """Return the command of one evaluation."""
    few = [f"evaluate.general_pictures={size.general}"] if size.general else []
    common = [f"effects={bank_file(effects or size.effects)}", *_teacher(size), *few, *values]
    return (*CLI, "eval", recipe, "--output", f"eval/{output}", *sets(*common))


def measurements(size: Size) -> list[Step]:
    """Tables 1, 3, 4 and 5, and few steps."""
    students = [f"train-{name}" for name in ("ours", *ABLATIONS)]
    rivals = ("train-fm", "train-lightning")
    last = f"add-{size.effects + size.added}"
    return [
        Step(
            "table1",
            evaluate(size, "effectbench-table1", size.table1, *_few(size)),
            ("train-ours", "train-ours-seed-1", *rivals, "pictures"),
        ),
        Step("table3", evaluate(size, "effectbench-table3", "table3", *_few(size)), (*students, "pictures")),
        Step(
            "steps",
            evaluate(size, "effectbench-steps", "steps", *_few(size)),
            ("train-ours", "train-lightning", "pictures"),
        ),
        Step("table5", _table5(size), (last, "train-lightning", "pictures")),
    ]


def grouping(size: Size) -> list[Step]:
    """`cldistill group`: a bank beyond fifty effects split by measured interference, and a smaller one also trained."""
    steps = []
    if size.split:
        bank = (*PYTHON, "cldistill_plugins.effectbench.bank", "bank", "--effects", str(size.split))
        split = _group(size, size.split, "split", "--at-most", "50")
        steps += [
            Step("bank-split", (*bank, "--lists", str(size.split)), ("bank",)),
            Step("split", split, ("bank-split",)),
        ]
    if size.trained_groups:
        share = max(1, size.coarse_steps * size.trained_groups // size.effects // 2)
        trained = _group(size, size.trained_groups, "groups", "--into", "2", "--train", *sets(*coarse(size, share)))
        steps.append(Step("groups", trained, ("teachers",)))
    return steps


def _group(size: Size, effects: int, output: str, *words: str) -> tuple[str, ...]:
    common = sets(f"effects={bank_file(effects)}", *_teacher(size), "samples=null")
    return (*CLI, "group", "effectbench-coarse", "--output", f"runs/{output}", *words, *common)


def looking(size: Size) -> list[Step]:
    """Table 2, compositions, and Figures 4, 5 and 9."""
    ours, bank = ("--collection", "runs/effectbench/collection"), bank_file(size.effects)
    table2 = (
        *PYTHON,
        "cldistill_plugins.deployment",
        *ours,
        "--adapters",
        "teachers",
        "--output",
        "eval/deployment.json",
        *(("--groups", "runs/split") if size.split else ()),
    )
    compose = (*PYTHON, "cldistill_plugins.effectbench.composition", "effectbench-eval", *ours)
    counts = ("--pairs-of-effects", str(size.compositions), "--pictures", str(min(4, size.art + size.photos)))
    into = ("--output", "eval/composition.json", *sets(f"effects={bank}", *_teacher(size)))
    rows = [word for name in ("effectbench", *(f"effectbench-{n}" for n in ABLATIONS)) for word in _curve(name)]
    figures = (*PYTHON, "cldistill_plugins.effectbench.figures", "runs/effectbench", "--output", "eval/figures", *rows)
    return [
        Step(
            "deployment",
            (*table2, "--queries", str(size.queries)),
            ("train-ours", "teachers", *(["split"] if size.split else [])),
        ),
        Step("composition", (*compose, *counts, *into), ("train-ours", "pictures")),
        Step("figures", figures, tuple(f"train-{name}" for name in ("ours", *ABLATIONS))),
    ]


def _curve(run: str) -> list[str]:
    name = "ours" if run == "effectbench" else run.removeprefix("effectbench-")
    return ["--curves", f"{name}=runs/{run}"]


def _few(size: Size) -> list[str]:
    return [f"evaluate.pictures={size.art + size.photos}", f"evaluate.teacher_steps={size.sampling_steps}"]


def _table4(size: Size, count: int) -> Step:
    ours, flow = f"run:effectbench-{count}", f"run:effectbench-fm-{count}"
    adapters = (f"evaluate.systems.ours.adapter={ours}", f"evaluate.systems.fm-lightning.adapter={flow}")
    command = evaluate(size, "effectbench-table4", f"table4-{count}", *adapters, effects=count)
    return Step(f"table4-{count}", command, (f"train-ours-{count}", f"train-fm-{count}", "train-lightning", "pictures"))


def _table5(size: Size) -> tuple[str, ...]:
    numbers = range(size.effects, size.effects + size.added + 1)
    systems = [{"name": f"ours-{n}", "title": f"{n} effects", "adapter": _grown(size, n)} for n in numbers]
    lightning = {"name": "teacher-lightning", "title": "Base + Lightning, new effects alone", "adapter": "teacher"}
    systems.append({**lightning, "with": "run:effectbench-lightning", "effects": added_names(size)})
    compare = [[f"ours-{n}", f"ours-{size.effects}"] for n in numbers[1:]]
    values = (f"evaluate.systems={json.dumps(systems)}", f"evaluate.compare={json.dumps(compare)}")
    return evaluate(size, "effectbench-table5", "table5", *values, effects=size.effects + size.added)


def _grown(size: Size, number: int) -> str:
    return "run:effectbench" if number == size.effects else f"run:effectbench-{number}"
