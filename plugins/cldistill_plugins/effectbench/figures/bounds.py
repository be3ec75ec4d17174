"""Figure 5: where TS-DMD's two bounds lie (arXiv 2605.25378 section 3.3), on the grid ``t_gen`` x ``t_critic``.

TS-DMD diffuses the target ``y`` to ``t_gen``, lets the student guess it back in one call (``y-hat``) and pulls that along
``-g``, drawn at ``t_critic``.  What each bound is for, and what is measured of it:

* ``t_gen < tau_max``: at high noise one call can only guess a mean of many pictures.  ``y-hat`` is smooth, unlike what a
  sampler ends with, and to learn from it is to learn about blurs.  ``energy``: the high-frequency energy of ``y-hat`` against
  that of ``y``, in decibel; below zero is over-smoothing.
* ``t_critic > tau_min``: at low noise critic and teacher both return what they see, whatever it lacks (Figure 4).
  ``cosine``: of ``-g`` with the direction ``y - y-hat``, in the picture's high band (`bands`), in its low band, and in the
  latent; 1 restores what the target has, 0 goes across, below zero leads away.  ``pull``: that cosine times the length of
  ``g`` there, which is what a unit step along the loss's gradient brings; a good direction without length pulls nothing.

What the plot cannot show.  ``y`` is *one* right answer: for an effect that draws, another one is as good, and the higher
``t_gen``, the less ``y-hat`` knows which one it came from, so that the cosine says too little of ``-g`` there.  The cosine is
of one noise draw a pair, and training averages many: a small one, if consistent, is a useful gradient.  Both are first-order
and pass through the decoder, linearised at ``y-hat``, whereas training moves the student's weights, which all noise levels
share.  And it is a still picture of one checkpoint on training pairs, mostly of a student that has been trained within
the bounds: whether training with other ones ends elsewhere, only training can tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..metrics.high_frequency import as_decibel, log_ratio
from .bands import BANDS, band_cosine, band_rms, cosine, rms, spectrum
from .probe import Probe

COLUMNS = 8
CRITIC_TIMESTEPS = tuple((index + 0.5) * 1000.0 / COLUMNS for index in range(COLUMNS))
"""Centres of eight equal bins, so that a bound of 500 lies between two of them."""


def measure_bounds(probe: Probe) -> Mapping[str, NDArray[np.float64]]:
    """Return the grids of one pair; rows are the student's own steps from high noise to low.

    ``cosine/<part>`` and ``pull/<part>`` ``[steps, 8]`` for the parts ``latent``, ``low`` and ``high`` (pull in units of the
    latent, of luma in the bands); ``energy`` ``[steps]`` in decibel; ``distance`` ``[steps]``: root mean square of
    ``y - y-hat``.
    """
    target = probe.target()
    outputs = probe.target_simulated(probe.schedule.sigmas())
    shown, wanted = probe.picture(outputs), probe.picture(target)
    rows = [
        _row(probe, *each, target, wanted) for each in zip(torch.split(outputs, 1), torch.split(shown, 1), strict=True)
    ]
    energies = [band_rms(spectrum(luma), "high").square() for luma in (shown, wanted)]
    return {
        **{name: torch.stack([row[name] for row in rows]).cpu().numpy() for name in rows[0]},
        "energy": as_decibel(log_ratio(energies[0], energies[1])).numpy(),
        "distance": rms(target - outputs).cpu().numpy(),
    }


def _row(probe: Probe, output: Tensor, shown: Tensor, target: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Return cosines and pulls of one output ``[1, ...]``, each ``[8]``."""
    comparison = probe.compare(output, torch.tensor(CRITIC_TIMESTEPS) / 1000.0)
    descent = -comparison.difference
    length = (rms(descent) / comparison.normaliser.double()).cpu()
    change = spectrum(probe.step_in_pictures(output, descent, shown))
    towards = spectrum(wanted - shown)
    found = {"cosine/latent": cosine(descent, target - output).cpu()}
    found["pull/latent"] = found["cosine/latent"] * length
    for band in BANDS:
        found[f"cosine/{band}"] = band_cosine(change, towards, band)
        found[f"pull/{band}"] = found[f"cosine/{band}"] * length * band_rms(change, band)
    return found
