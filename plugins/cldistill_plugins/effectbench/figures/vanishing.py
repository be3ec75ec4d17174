"""Figure 4: how the distribution-matching gradient of arXiv 2605.25378 (section 3.3) vanishes at low noise.

Critic and teacher both estimate the clean latent behind a noised output of the student.  The less noise, the less is left
to guess: both return what they see, and ``f - r`` goes to zero with ``t_critic``, whatever is wrong with the output.  The
loss divides by ``mean |y - r|``, which goes to zero as well: the *length* of the gradient is kept up so, but by scaling what
little the networks still disagree on.  Hence TS-DMD's bound ``t_critic > tau_min``.

The plot shows sizes, on the networks of one checkpoint and on training pairs, for the outputs that BS-DMD sees (the
student's own rollout) and those that TS-DMD sees (one call on the diffused target).  It cannot show whether what is left
points the right way (Figure 5 looks at that), and a critic that follows its student closely makes everything small.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bands import BANDS, band_rms, rms, spectrum
from .probe import Probe

TIMESTEPS = (20.0, 60.0, 120.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 980.0)
SAMPLES = {"bs": "BS-DMD: the student's own rollout", "ts": "TS-DMD: one call on the diffused target"}
PARTS = ("latent", *BANDS)
FORMS = ("difference", "normalised")


def measure_vanishing(probe: Probe, tau_max: float) -> Mapping[str, NDArray[np.float64]]:
    """Return ``<sample>/<part>/<form>`` -> one value for each of `TIMESTEPS`, of one pair.

    The samples are those of `SAMPLES`.  Part ``latent`` is the root mean square of ``f - r``; ``low`` and ``high`` are that of
    the change in luma which it stands for (`cldistill_plugins.effectbench.figures.probe.Probe.step_in_pictures`), by band.
    Form ``difference`` is as it is; ``normalised`` is divided by ``mean |y - r|``, as in the loss.
    """
    outputs = {"bs": probe.backward_simulated(), "ts": probe.target_simulated(probe.drawn_low_step(tau_max))}
    found: dict[str, NDArray[np.float64]] = {}
    for sample, output in outputs.items():
        comparison = probe.compare(output, torch.tensor(TIMESTEPS) / 1000.0)
        for part, size in _sizes(probe, output, comparison.difference).items():
            found[f"{sample}/{part}/difference"] = size.cpu().numpy()
            found[f"{sample}/{part}/normalised"] = (size.cpu() / comparison.normaliser.double().cpu()).numpy()
    return found


def _sizes(probe: Probe, output: Tensor, difference: Tensor) -> dict[str, Tensor]:
    length = rms(difference).cpu()
    change = spectrum(probe.step_in_pictures(output, difference, probe.picture(output)))
    return {"latent": length, **{band: length * band_rms(change, band) for band in BANDS}}
