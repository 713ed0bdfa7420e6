"""What is done to a batch before the network sees it: warped, whitened, resized, normalised.

All of it runs on the device that the batch lies on. Warping is that of a plan
(`marrowflow.images.augment`), and one interpolation; resizing is antialiased, as it was when the
published weights were trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import affine_grid, conv2d, grid_sample, interpolate, pad

from marrowflow.images.augment import matrices
from marrowflow.images.whitening import Whitening


@dataclass(frozen=True)
class Preparation:
    """What is done to a batch on the device before the network sees it.

    Attributes
    ----------
    input_size
        Side of the network's input in pixels.
    mean, std
        Of R, G, B on the scale 0..1.
    whitening
        Fitted on the fold's training images; needed where the plan whitens.
    """

    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: Whitening | None = None

    @torch.no_grad()
    def __call__(
        self, pixels: torch.Tensor, theta: torch.Tensor | None = None, whitened: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return float32 [n, 3, side, side] in channels-last order.

        Parameters
        ----------
        pixels
            uint8 [n, S, S, 3], RGB.
        theta
            float32 [n, 2, 3] of `normalised_maps`; None leaves the geometry alone.
        whitened
            int64: places in the batch of the images to whiten after the warp. Places and not a mask, whose
            number of hits a GPU would have to report back.
        """
        x = pixels.permute(0, 3, 1, 2)
        if x.device.type != "cpu" or theta is not None or whitened is not None:
            # Only the CPU resizes bytes: in a tenth of the time, and within a level.
            x = x.float()
        if theta is not None:
            grid = affine_grid(theta, list(x.shape), align_corners=True)
            x = grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)
        if whitened is not None and len(whitened):
            x[whitened] = self._whiten(x[whitened])
        if x.shape[-1] != self.input_size:
            # Antialiasing averages over all pixels that a smaller one covers; it does nothing when enlarging.
            x = interpolate(x, size=(self.input_size, self.input_size), mode="bilinear", antialias=True)
        scale = _per_channel(tuple(1 / (255 * s) for s in self.std), x.device)
        shift = _per_channel(tuple(-m / s for m, s in zip(self.mean, self.std, strict=True)), x.device)
        return torch.addcmul(shift, x, scale).contiguous(memory_format=torch.channels_last)

    def _whiten(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the patch ZCA (formula in `marrowflow.images.whitening`) to levels 0..255."""
        if self.whitening is None:
            raise ValueError("this plan whitens: a Whitening fitted on its training images is needed")
        if x.device not in self._kernels:
            self._kernels[x.device] = torch.from_numpy(self.whitening.kernel).to(x)
        kernel = self._kernels[x.device]
        edge = kernel.shape[-1] // 2
        centred = x / 255 - _per_channel(tuple(self.whitening.mean.tolist()), x.device)
        response = conv2d(pad(centred, (edge, edge, edge, edge), mode="replicate"), kernel)
        return (self.whitening.offset + self.whitening.gain * response).clamp(0, 255)

    @cached_property
    def _kernels(self) -> dict[torch.device, torch.Tensor]:
        return {}


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    # Kept, because each copy to a GPU waits until all of its work is done.
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def normalised_maps(plan: pd.DataFrame, size: int) -> np.ndarray:
    """Return the plan's maps in the coordinates of ``affine_grid(…, align_corners=True)``: float64 [n, 2, 3].

    There the centres of the first and the last pixel lie at -1 and 1, so with c = (size - 1) / 2 the
    pixel map ``M = [A t]`` becomes ``[A, (A c + t - c) / c]``.
    """
    pixel_maps = matrices(plan, size)
    linear, offset = pixel_maps[:, :, :2], pixel_maps[:, :, 2]
    centre = (size - 1) / 2
    moved = (linear.sum(axis=2) * centre + offset - centre) / centre
    return np.concatenate([linear, moved[:, :, None]], axis=2)
