"""Image files turned into pixels, the same way everywhere: one decoder a format, damage is never silent.

========  ==============  ==========================================================================
format    decoder         why this one
========  ==============  ==========================================================================
JPEG      simplejpeg      as fast as any, releases the interpreter, refuses truncated files
                          (OpenCV and most bindings of libjpeg fill the rest with grey)
PNG, BMP  OpenCV          releases the interpreter, verifies PNG's checksums, refuses truncated files
TIFF      Pillow          the one that turns every kind of TIFF upright (OpenCV 4.13 leaves grey ones)
========  ==============  ==========================================================================

What comes out is always upright 8-bit RGB:

- the EXIF (or TIFF) orientation is applied, so that the networks see what every viewer shows;
- 16-bit samples keep their high byte, as libpng and Pillow do (the exact inverse of ``v * 257``);
- grey is repeated over three channels; palettes and CMYK are converted;
- what is transparent is laid on white, the colour of empty glass;
- of several frames or pages the first is taken, and their number recorded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

MAX_PIXELS = 100_000_000
"""An image with more pixels is refused before it is decoded (300 MB as RGB); whole slides are not read here."""

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
# How stored pixels become upright, by the EXIF orientation (TIFF 6.0, tag 274).
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}

# Pillow warns about large images and odd tags; here the size has its own limit and damage its own error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL.TiffImagePlugin")


class Unreadable(Exception):
    """The bytes are no complete image of a known format; the message is the reason, in a few words."""


@dataclass(frozen=True)
class Decoded:
    """An image and what its file said of it.

    Attributes
    ----------
    pixels
        uint8 RGB, shape (height, width, 3), upright, C-contiguous.
    channels
        Channels in the file: 1 grey, 2 grey and alpha, 3 colour (a palette too), 4 with alpha or CMYK.
    bit_depth
        8 or 16 bits a sample in the file.
    format
        JPEG, PNG, BMP or TIFF.
    orientation
        EXIF orientation, 1 to 8; 1 is upright. It has been applied to ``pixels``.
    frames
        Number of frames or pages in the file; ``pixels`` is the first.
    """

    pixels: np.ndarray
    channels: int
    bit_depth: int
    format: str
    orientation: int = 1
    frames: int = 1

    @property
    def height(self) -> int:
        """Rows of the upright image, pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns of the upright image, pixels."""
        return self.pixels.shape[1]


def decode(data: bytes) -> Decoded:
    """Decode the bytes of one JPEG, PNG, BMP or TIFF file.

    Raises
    ------
    Unreadable
        Empty, truncated or damaged; another format; samples other than 8 or 16 bits; more than
        `MAX_PIXELS` pixels.
    """
    if not data:
        raise Unreadable("empty file")
    kind = next((name for signature, name in SIGNATURES.items() if data.startswith(signature)), None)
    if kind is None:
        raise Unreadable("neither JPEG, PNG, BMP nor TIFF")
    try:
        if kind == "JPEG":
            return _decode_jpeg(data)
        if kind == "TIFF":
            return _decode_tiff(data)
        return _decode_with_opencv(data, kind)
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable(f"too large: at most {MAX_PIXELS:,} pixels are read") from error
    # Decoders answer damaged bytes with exceptions of many kinds; each means the same here.
    except Exception as error:
        raise Unreadable(_reason(data, kind, error)) from error


def _decode_jpeg(data: bytes) -> Decoded:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _refuse_huge(width, height)
    pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    orientation = 1
    # Few smears carry EXIF, and looking for it costs a hundredth of parsing it.
    if data.find(b"Exif\0\0", 0, 1 << 16) >= 0:
        with Image.open(io.BytesIO(data)) as image:
            orientation = _orientation(image)
    channels = {"Gray": 1, "CMYK": 4, "YCCK": 4}.get(colours, 3)
    return Decoded(_upright(pixels, orientation), channels, 8, "JPEG", orientation)


def _decode_with_opencv(data: bytes, kind: str) -> Decoded:
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        _refuse_huge(*image.size)
        channels, orientation, frames = _channels(image), _orientation(image), getattr(image, "n_frames", 1)
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise ValueError("decoding failed")
    depth = stored.dtype.itemsize * 8
    pixels = _high_byte(stored)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return Decoded(_upright(_rgb(pixels), orientation), channels, depth, kind, orientation, frames)


def _decode_tiff(data: bytes) -> Decoded:
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        _refuse_huge(*image.size)
        # Read before the pixels: loading them turns the image upright and drops the tag.
        orientation, channels, frames = _orientation(image), _channels(image), getattr(image, "n_frames", 1)
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        depth = max(bits) if isinstance(bits, tuple) else int(bits)
        if depth > 16 or image.mode in ("F", "I"):
            raise Unreadable(f"{depth}-bit samples; 8 and 16 bits are read")
        image.load()
        if image.mode.startswith("I;16"):
            pixels = _high_byte(np.asarray(image).astype(np.uint16))
        else:
            transparent = "A" in image.getbands() or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    return Decoded(_rgb(pixels), channels, 16 if depth > 8 else 8, "TIFF", orientation, frames)


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"too large: {width} x {height} pixels, at most {MAX_PIXELS:,} are read")


def _channels(image: Image.Image) -> int:
    if image.mode == "P":
        return 4 if "transparency" in image.info else 3
    return len(image.getbands())


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in _UPRIGHT else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _high_byte(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype != np.uint16:
        raise Unreadable(f"{samples.dtype} samples; 8 and 16 bits are read")
    return (samples >> 8).astype(np.uint8)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Return grey, RGB or RGBA (uint8) as RGB; transparency on white."""
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _reason(data: bytes, kind: str, error: Exception) -> str:
    """Word what a decoder answered: a file that ends too early, or one that is wrong inside."""
    cut = {
        "JPEG": b"\xff\xd9" not in data[-1024:],
        "PNG": b"IEND" not in data[-1024:],
        "BMP": int.from_bytes(data[2:6], "little") > len(data),
        "TIFF": "truncated" in str(error).lower() or _first_directory(data) >= len(data),
    }[kind]
    return "truncated" if cut else f"damaged {kind}"


def _first_directory(data: bytes) -> int:
    """Return where a TIFF's directory stands; most writers put it behind the pixels."""
    order = "little" if data[:1] == b"I" else "big"
    return int.from_bytes(data[8:16] if b"+" in data[2:4] else data[4:8], order)  # type: ignore[arg-type]
