"""A bank of real picture effects: neural styles and G'MIC commands as pure functions of a picture and a seed."""

from .apply import apply, apply_effect
from .catalogue import bank_of, catalogue, knows, named
from .colour_filter import ColourFilter
from .effect import EffectError, EffectRecord, Picture, derived_seed
from .gmic_command import GmicCommand
from .neural import NeuralStyle
from .painting import PaintingStyle
from .pairs import write_bank, write_effect
from .six import SIX
from .truth import truth_draws

__all__ = [
    "SIX",
    "ColourFilter",
    "EffectError",
    "EffectRecord",
    "GmicCommand",
    "NeuralStyle",
    "PaintingStyle",
    "Picture",
    "apply",
    "apply_effect",
    "bank_of",
    "catalogue",
    "derived_seed",
    "knows",
    "named",
    "truth_draws",
    "write_bank",
    "write_effect",
]
