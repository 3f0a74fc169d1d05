"""From what a file holds to pixels: 8 bits, sRGB, upright, transparency as a channel.

docs/formats.md has the table of what is read, converted, noted and refused.
"""

import logging
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

from studyguide.errors import ImageError
from studyguide.tiles import Pixels

try:
    import imagecodecs

    logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)  # Pillow reports, with the name
except ImportError:  # the extra `fast`: Pillow alone decodes, too
    imagecodecs = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from PIL import ImageCms

Note = Callable[[str], None]

CONVERT_FIRST = (
    "Export it as PNG, or as interleaved TIFF of unsigned 8 or 16 bits; docs/formats.md shows how"
)
# Chunks that leave pixels as they are stored. Others make them transparent, turn or move them.
PLAIN = set(b"IHDR IDAT IEND gAMA cHRM sRGB iCCP sBIT bKGD pHYs".split())
# Pillow's modes -> those that colours are converted from; others are kept.
DECODED = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
DECODED |= dict.fromkeys(["P", "RGBX", "YCbCr", "LAB"], "RGB")
SRGB_GAMMA = 0.45455
SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green, blue


def to_pixels(path: Path, image: ImageFile, note: Note) -> Pixels:
    """Decode the image that is open at a path.

    `note` is called with each thing that is left out: other frames, a broken profile.

    Raises ImageError if the file does not say which value is white.

    Returns
    -------
    uint8 array, shape (H, W), (H, W, 3) or (H, W, 4)
    """
    if isinstance(image, TiffImageFile):
        _check_tiff(path, image)
    profile = image.info.get("icc_profile")  # before what stands behind the pixels is read
    _note_gamma(image.info, note)
    plain = _decode_plain(path, image) if imagecodecs else None
    if plain is not None and not profile:
        return plain
    decoded = _decode(path, image) if plain is None else Image.fromarray(plain)
    if profile and image.mode != "LAB":  # whose colours need no profile
        decoded = _in_srgb(decoded, profile, note)
    wanted = {"LA": "RGBA", "CMYK": "RGB"}.get(decoded.mode, decoded.mode)
    # `convert` copies where there is nothing to convert: half the time of decoding.
    return np.asarray(decoded if decoded.mode == wanted else decoded.convert(wanted))


def _check_tiff(path: Path, image: TiffImageFile) -> None:
    tags = image.tag_v2
    kinds = {2: "signed integers", 3: "floating point numbers"}
    kind = kinds.get(max(tags.get(SAMPLEFORMAT, (1,))), "32-bit integers" * (image.mode == "I"))
    if kind:
        problem = f"{path} holds {kind}, and nothing in it says which one is white"
        raise ImageError(problem, CONVERT_FIRST)
    bits, planes = max(tags.get(BITSPERSAMPLE, (1,))), tags.get(PLANAR_CONFIGURATION)
    if bits > 8 and planes == 2 and image.tile[0].codec_name == "raw":
        problem = f"{path} holds 16-bit samples in separate planes without compression"
        raise ImageError(problem, CONVERT_FIRST)  # Pillow takes each byte for a sample


def _note_gamma(info: dict[Any, Any], note: Note) -> None:
    """Gamma and primaries of a PNG are not applied: docs/decisions/0012-colours-are-srgb.md."""
    if "icc_profile" in info or "srgb" in info:
        return
    if abs(info.get("gamma", SRGB_GAMMA) - SRGB_GAMMA) > 0.01:
        note(f"its gamma of {info['gamma']:g} is not applied")
    given = info.get("chromaticity", SRGB_PRIMARIES)
    if any(abs(a - b) > 0.01 for a, b in zip(given, SRGB_PRIMARIES, strict=False)):
        note("its primaries are not applied")


# --- decoding ------------------------------------------------------------------------------------


def _decode_plain(path: Path, image: ImageFile) -> Pixels | None:
    """Decode a PNG of plain 8-bit samples by libpng; None if it is another one, or damaged."""
    if not isinstance(image, PngImageFile) or image.mode not in ("L", "RGB", "RGBA"):
        return None
    if image.tile[0].args != image.mode:  # other than 8 bits a sample
        return None
    with suppress(Exception):  # Pillow reports it
        body = path.read_bytes()
        kinds = list(_chunk_kinds(body))
        if kinds[-1] == b"IEND" and PLAIN.issuperset(kinds):
            pixels: Pixels = imagecodecs.png_decode(body)
            return pixels
    return None


def _chunk_kinds(png: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        yield kind
        at += length + 12


def _decode(path: Path, image: ImageFile) -> Image.Image:
    """Decode by Pillow, to one of the modes L, LA, RGB, RGBA and CMYK."""
    mode, raw, key = image.mode, _raw_mode(image), image.info.get("transparency")
    if mode.startswith("I;16"):
        samples, full = _deep_grey(image, raw)
    elif ";16" in raw:
        samples, full = _deep_colours(path, raw), 65535
    elif key is not None and mode in ("1", "L", "RGB"):
        bits = {"1": 1, "L;2": 2, "L;4": 4}.get(raw, 8)
        key = np.bitwise_and(key, (1 << bits) - 1) * (255 // ((1 << bits) - 1))
        upright = _upright(image)
        samples, full = np.asarray(upright.convert("L") if mode == "1" else upright), 255
    else:
        wanted = "RGBA" if mode == "P" and key is not None else DECODED.get(mode, mode)
        upright = _upright(image)
        return upright if mode == wanted else upright.convert(wanted)
    table = (np.arange(full + 1, dtype=np.uint32) * 255 + full // 2) // full
    pixels = table.astype(np.uint8)[samples]
    if key is not None:
        see_through = np.atleast_3d(samples == key).all(axis=2)
        pixels = np.dstack([pixels, np.where(see_through, 0, 255).astype(np.uint8)])
    height, width, channels = np.atleast_3d(pixels).shape
    mode = mode if mode == "CMYK" else {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    return Image.frombytes(mode, (width, height), pixels.tobytes())


def _raw_mode(image: ImageFile) -> str:
    """How Pillow calls the samples of the file: "RGB;16B" has 16 bits, big-endian."""
    args = image.tile[0].args if image.tile else None
    return str(args[0]) if isinstance(args, tuple) else args or ""


def _deep_grey(image: Image.Image, raw: str) -> tuple[np.ndarray, int]:
    """Samples of 12 or 16 bits, shape (H, W), and which of them is white."""
    full = 4095 if raw == "I;12" else 65535
    samples = np.asarray(_upright(image))
    if isinstance(image, TiffImageFile) and image.tag_v2[PHOTOMETRIC_INTERPRETATION] == 0:
        samples = full - samples  # 0 is white; Pillow inverts samples of up to 8 bits only
    return samples, full


def _deep_colours(path: Path, raw: str) -> np.ndarray:
    """16-bit samples, uint16, shape (H, W, C).

    Pillow has no such modes and keeps the high bytes. So the file is decoded again as if its bytes
    were in the other order, which gives the low ones.
    """
    if raw == "LA;16B":  # as many bytes as RGBA
        return _decode_as(path, "RGBA").view(">u2").astype(np.uint16)
    order = raw[-1] if raw[-1] != "N" else {"little": "L", "big": "B"}[sys.byteorder]
    plain = raw[:-1].replace("a", "A")  # Pillow would divide by alpha byte by byte
    high, low = (_decode_as(path, plain + end) for end in (order, {"L": "B", "B": "L"}[order]))
    samples: np.ndarray = high.astype(np.uint16) << 8 | low
    if "RGBa" in raw:  # colours were multiplied by alpha
        alpha = np.maximum(samples[..., 3:], 1).astype(np.uint32)
        samples[..., :3] = np.minimum(samples[..., :3] * np.uint32(65535) // alpha, 65535)
    return samples


def _decode_as(path: Path, raw: str) -> Pixels:
    with Image.open(path) as image:
        for n, tile in enumerate(image.tile):
            args = (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
            image.tile[n] = tile._replace(args=args)
        return np.asarray(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


# --- colours -------------------------------------------------------------------------------------


def _in_srgb(image: Image.Image, profile: bytes, note: Note) -> Image.Image:
    """Convert the colours of a profile to sRGB; grey stays grey and alpha is left alone."""
    grey = image.mode in ("L", "LA")
    try:
        transform = _transform(profile, "L" if grey else image.mode.removesuffix("A"))
    except Exception as error:  # whatever is wrong with a profile, its image is not lost
        note(f"its colour profile is not applied ({error})")
        transform = None
    if transform is None:
        return image
    colours: Image.Image = transform.apply(image.convert(transform.input_mode))
    if grey:
        colours = colours.getchannel("G")
    if image.mode.endswith("A"):
        colours.putalpha(image.getchannel("A"))
    return colours


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """Make what converts the colours of a profile to sRGB; None if they are those of sRGB.

    Raises ValueError if the profile is not one for images of this mode, ImageCms.PyCMSError if it
    is damaged.
    """
    from PIL import ImageCms  # few images need it

    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    taken = {"GRAY": "L"}.get(space, space)
    if mode != taken and (mode, taken) != ("L", "RGB"):
        raise ValueError(f"it is for {space} images, and this one is {mode}")
    intent, black = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, taken, "RGB", intent, black)
    levels = np.linspace(0, 255, 33).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 33, 3)
    sample = Image.fromarray(colours if taken == "RGB" else colours[..., 0])
    changed = np.asarray(transform.apply(sample.convert(taken))).astype(int)
    same = taken != "CMYK" and np.abs(changed - np.asarray(sample.convert("RGB"))).max() <= 1
    return None if same else transform
