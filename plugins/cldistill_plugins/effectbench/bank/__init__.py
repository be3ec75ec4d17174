"""A bank of real picture effects: neural styles and G'MIC commands as pure functions of a picture and a seed."""

from .apply import apply, apply_effect, named
from .effect import Effect, EffectError, Picture, derived_seed
from .gmic_command import GmicCommand
from .neural import NeuralStyle
from .pairs import write_bank, write_effect
from .six import SIX
from .truth import truth_draws

__all__ = [
    "SIX",
    "Effect",
    "EffectError",
    "GmicCommand",
    "NeuralStyle",
    "Picture",
    "apply",
    "apply_effect",
    "derived_seed",
    "named",
    "truth_draws",
    "write_bank",
    "write_effect",
]
