"""What stands between images and the network: folded pixels, an autoencoder, or both. One idea with two verbs: encode, decode."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor
from torch.nn import functional as F

from ..training import digest_of

MOST_KEPT = 4_000_000_000  # bytes of latents that a training remembers: 60,000 images of 512 x 512 pixels


@dataclass(frozen=True)
class Codec:
    """Images, B x C x H x W in [-1, 1], to what the network sees, and back.

    patch_size: images are folded by pixel-unshuffle. That only reorders the pixels, so the diffusion is the same one.
    vae: encodes what was folded; its most probable latents, by its own scaling factor, have a variance near 1. None: pixels.
    """

    patch_size: int = 1
    vae: AutoencoderTiny | AutoencoderKL | None = None

    @classmethod
    def of(cls, pipe) -> Codec:
        """That of a pipeline, this project's or diffusers' own."""
        return cls(pipe.config.get("patch_size", 1), getattr(pipe, "vae", None))

    @property
    def latent(self) -> bool:
        """Latents have no range to clip to; pixels have."""
        return self.vae is not None

    @property
    def factor(self) -> int:
        """Side of an image by the side of what the network sees."""
        return self.patch_size * (2 ** (len(self.vae.config.block_out_channels) - 1) if self.latent else 1)

    def image_channels(self, in_channels: int) -> int:
        """Channels of the images, for a network that sees `in_channels`."""
        return (self.vae.config.in_channels if self.latent else in_channels) // self.patch_size**2

    @property
    def fingerprint(self) -> dict:
        """What a training's settings record of it."""
        return {"patch_size": self.patch_size} | ({"vae": digest_of(self.vae)} if self.latent else {})

    def encode(self, images: Tensor) -> Tensor:
        """What the network sees: B x (C p^2) x (H / p) x (W / p) of folded pixels, or the latents, in float32."""
        x = F.pixel_unshuffle(images, self.patch_size)
        if not self.latent:
            return x
        shift = self.vae.config.get("shift_factor") or 0.0
        with torch.no_grad():
            output = self.vae.encode(x.to(self.vae.device, self.vae.dtype))
            latents = output.latents if isinstance(self.vae, AutoencoderTiny) else output.latent_dist.mode()
        return (latents.float() - shift) * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`, as far as the autoencoder has one; not clamped."""
        if self.latent:
            shift = self.vae.config.get("shift_factor") or 0.0
            latents = latents / self.vae.config.scaling_factor + shift
            latents = self.vae.decode(latents.to(self.vae.device, self.vae.dtype)).sample
        return F.pixel_shuffle(latents, self.patch_size)


class Latents:
    """The latents of images that a training has seen, on the CPU, so that the autoencoder, which takes long, sees each image once:
    alone and in its own precision, whatever its batch and the step's precision are."""

    def __init__(self, codec: Codec, most: int = MOST_KEPT):
        self.codec, self.most, self.kept = codec, most, {}

    def of(self, images: Tensor) -> Tensor:
        """What `Codec.encode` makes of images, B x C x H x W; of more than `most` bytes in all, the rest is encoded each time."""
        return torch.stack([self._of_one(image) for image in images])

    def _of_one(self, image: Tensor) -> Tensor:
        key = hashlib.blake2b(image.contiguous().numpy(), digest_size=16).digest()
        if key in self.kept:
            return self.kept[key]
        with torch.autocast(self.codec.vae.device.type, enabled=False):
            latents = self.codec.encode(image[None])[0].cpu()
        if (len(self.kept) + 1) * latents.nbytes <= self.most:
            self.kept[key] = latents
        return latents


PIXELS = Codec()  # no codec at all: the network sees the images as they are
