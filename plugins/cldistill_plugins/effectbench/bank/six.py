"""The six effects of the quickstart: four deterministic, two stochastic.

Chosen for distances between source and truth of at least 0.25 (HED-VGG LPIPS), for being told apart without error, and
for fitting a small base: patterns repeat in whole 8-pixel cells of an f8 VAE, so one latent cell looks like the next.
The two stochastic ones have few, crisp modes: a model that averages over them shows grey where there should be lines or
colours, which is what over-smoothing means, while a model that draws one of them is near to one of 16 truths.
"""

from __future__ import annotations

from types import MappingProxyType

from .effect import EffectRecord
from .gmic_command import GmicCommand
from .neural import NeuralStyle

# Dots on a grid of 16 pixels, in one ink on cream paper; the darker the picture is around a dot, the larger it is.
_HALFTONE = (
    "+luminance. b. 2 "
    'f[0] "l=i(#1,x,y,0,0)/255;across=x%16-7.5;down=y%16-7.5;'
    "dot=max(0,min(1,(9.5*sqrt(1-l)-sqrt(across^2+down^2))*0.7+0.5));"
    'paper=c==0?250:c==1?235:200;ink=c==0?190:c==1?20:70;paper*(1-dot)+ink*dot" rm[1]'
)

# Square tiles of 8 pixels, each of one colour, with white joints between them.
_MOSAIC = 'pixelize 12.5 f "joint=x%8==0||y%8==0;joint?235:i"'

# Lines along one of two diagonals with one of two phases; thicker where the picture is dark; the ink's darkness varies.
_HATCHING = (
    "k={int(u(0,1.999))} q={int(u(0,1.999))/2} v={u(0.8,1.2)} +luminance. b. 0.8 "
    'f[0] "l=i(#1,x,y,0,0)/255;way=$k?1:-1;p=(x+way*y)/16+$q;wave=abs(2*(p-floor(p))-1);'
    "paper=max(0,min(1,(0.6*l+0.28-wave)*8+0.5));ink=$v*(c==0?35:c==1?25:60);"
    'paper*min(255,0.6*i+100)+(1-paper)*ink" rm[1]'
)

# A border of 8-pixel checks, white and one of four colours, with one of two phases; the shade varies a little.
_PARTY_FRAME = (
    "k={int(u(0,3.999))} q={int(u(0,1.999))} v={u(-12,12)} "
    'f "m=min(x,y,w-1-x,h-1-y);'
    "colour=$v+(c==0?arg0($k,225,30,40,240):c==1?arg0($k,45,160,80,190):arg0($k,50,75,215,25));"
    'm<16?((int(x/8)+int(y/8)+$q)%2?colour:250):m<18?20:i"'
)

SIX: MappingProxyType[str, EffectRecord] = MappingProxyType(
    {
        effect.name: effect
        for effect in (
            EffectRecord("crimson-oil", "paint it in crimson oil", NeuralStyle(20)),
            EffectRecord("winter-pastel", "paint it in pale winter colours", NeuralStyle(14)),
            EffectRecord(
                "halftone",
                "print it as a halftone",
                GmicCommand(_HALFTONE, "dots of one ink on paper, as large as the picture is dark"),
            ),
            EffectRecord(
                "mosaic", "lay it in mosaic tiles", GmicCommand(_MOSAIC, "tiles of 8 pixels with white joints")
            ),
            EffectRecord(
                "ink-hatching",
                "draw it with bold ink lines",
                GmicCommand(_HATCHING, "diagonal lines of random direction and phase, as thick as the picture is dark"),
                stochastic=True,
            ),
            EffectRecord(
                "party-frame",
                "put a party frame around the picture",
                GmicCommand(_PARTY_FRAME, "a checked border in one of four colours at random"),
                stochastic=True,
            ),
        )
    }
)
"""The quickstart's effects by name, in the order in which they are shown."""
