"""The check of a prompt isolator: all that the engine relies on, asserted on small material for its author's tests."""

from __future__ import annotations

from cldistill.component import AnyComponent
from cldistill.data.triggers import check_triggers
from cldistill.errors import ManifestError
from cldistill.protocols import PromptIsolator
from cldistill.records import EffectInfo, Prompts
from cldistill.testing.conformance import Options, check_component, read_settings, scratch_context
from cldistill.testing.elsewhere import prompts

NAMES = ("manga-tone", "gold-frame", "snow", "pencil", "pencil-2", "clay", "neon", "mosaic")
EFFECTS = tuple(EffectInfo(name, f"turn the picture into {name}") for name in NAMES)
FEW = 3


def check_prompt_isolator(component: AnyComponent, options: Options = None, *, fresh: bool = True) -> None:
    """Assert that prompts are static, that triggers are unique and survive an added effect, and who hears what.

    ``fresh``: see `cldistill.testing.check_component`.
    """
    checker, _ = check_component(component, "prompt_isolator", options, fresh=fresh, ask=prompts)
    settings = read_settings(component, options)
    with checker.leaves_global_random_alone("derive triggers from the effect's name"):
        few = _prompts(component, settings, EFFECTS[:FEW])
        many = _prompts(component, settings, EFFECTS)
        backwards = _prompts(component, settings, EFFECTS[::-1])
    require = checker.require
    moved = [name for name in few if few[name] != many[name]]
    require(
        not moved, f"adding effects changes the prompts of {moved}: the trained student would not know them any more"
    )
    require(many == backwards, "the order of effects, or of calls, changes prompts: derive each from its effect alone")
    for effect in EFFECTS:
        said = many[effect.name]
        require(isinstance(said, Prompts), f"must return Prompts, not {type(said).__name__}")
        require(
            bool(said.teacher.strip()),
            f"{effect.name}: the teacher hears nothing; it was trained with effect.prompt",
        )
        require(
            said.trigger in said.student,
            f"{effect.name}: its trigger {said.trigger!r} is not in the student's prompt",
        )
    require(
        len({p.student for p in many.values()}) == len(many),
        "two effects share a student's prompt: one LoRA cannot tell them apart",
    )
    try:
        check_triggers({name: p.trigger for name, p in many.items() if p.trigger}, lambda text: tuple(text.encode()))
    except ManifestError as error:
        checker.fail(f"its triggers are not distinct: {error}")
    with scratch_context(EFFECTS) as context:
        general = component.build(settings, context).general("make it darker")
    require(general.student == general.teacher, "a general instruction must be the same for student and teacher")
    require(not general.trigger, "a general instruction must have no trigger")


def _prompts(component: AnyComponent, settings: object, effects: tuple[EffectInfo, ...]) -> dict[str, Prompts]:
    with scratch_context(effects) as context:
        isolator: PromptIsolator = component.build(settings, context)
        found = {effect.name: isolator.isolate(effect) for effect in effects}
        assert found == {effect.name: isolator.isolate(effect) for effect in effects}, "isolate() is not static"
    return found
