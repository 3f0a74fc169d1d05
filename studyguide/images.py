"""Loading and saving images: what people have in folders, in and out of uint8 arrays.

Grey stays grey (H, W); all else becomes RGB (H, W, 3), or RGBA (H, W, 4) where there is
transparency. Palettes and CMYK are converted, 16 bits are scaled down to 8, and the rotation that
a camera notes in EXIF is applied. Colour profiles are not: pixels are blurred as they are stored.
"""

import hashlib
import logging
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from isal import isal_zlib
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from studyguide.errors import ImageError, UsageError, explained
from studyguide.tiles import Pixels

try:
    import imagecodecs

    logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)  # Pillow will tell, with the name
except ImportError:  # the extra `fast`: Pillow alone decodes, too
    imagecodecs = None  # type: ignore[assignment]

FORMATS = {".png": ("PNG",), ".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO")}
FORMATS |= {".webp": ("WEBP",), ".tif": ("TIFF",), ".tiff": ("TIFF",)}
# Pillow refuses beyond this, about 179 million pixels; a small file that claims more is a bomb.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
# Measured beside Pillow's levels and zlib: docs/decisions/0003-png-encoder.md.
PNG_LEVEL = 2
# Chunks that leave pixels as they are stored. Others make them transparent, turn or move them.
PLAIN = set(b"IHDR IDAT IEND gAMA cHRM sRGB iCCP sBIT bKGD pHYs".split())
PNG_COLOURS = {1: 0, 3: 2, 4: 6}  # channels -> colour type


def find(folder: Path) -> tuple[list[Path], list[tuple[Path, ImageError]]]:
    """List a folder's images by name, and those that cannot be done because two share a stem.

    Raises UsageError if the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise UsageError(f"The image folder {folder} does not exist", "Name a folder with --images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in FORMATS)
    if not paths:
        kinds = " ".join(FORMATS)
        raise UsageError(
            f"The folder {folder} holds no image", f"Put files of these kinds in: {kinds}"
        )
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(path.stem.casefold(), path)  # macOS takes A.png and a.png for one file
    chosen = list(first.values())
    clashes = []
    for path in (path for path in paths if path not in chosen):
        same = f"{path} has the same stem as {first[path.stem.casefold()].name}"
        problem = f"{same}: both would be saved as {path.stem}.png"
        clashes.append((path, ImageError(problem, "Rename one of them")))
    return chosen, clashes


def load(path: Path) -> Pixels:
    """Read an image file.

    Raises ImageError if the file is no whole image of the kind that its name says, or too large.

    Returns
    -------
    uint8 array, shape (H, W), (H, W, 3) or (H, W, 4)
    """
    try:
        with _open(path) as image:
            _check_format(path, image.format or "no image")
            return _convert(image)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        limit = f"{MAX_PIXELS / 1e6:.0f} million pixels"
        raise ImageError(f"{path} claims more than {limit}", "Scale it down first") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path} is gone", "Restore the file and run again") from error
    except Exception as error:  # whatever a decoder makes of it: OverflowError has been seen
        is_empty = path.exists() and path.stat().st_size == 0
        cause = "is empty" if is_empty else f"cannot be read as an image ({error})"
        raise ImageError(f"{path} {cause}", "Replace or remove the file") from error


def size(path: Path) -> tuple[int, int]:
    """Height and width in pixels as the file's header tells; (0, 0) if it tells nothing."""
    try:
        with _open(path) as image:
            return image.height, image.width
    except Exception:  # `load` will tell
        return 0, 0


def _open(path: Path) -> Image.Image:
    # Pillow warns of flaws that are mended or refused here. Filters belong to the process, not to a
    # thread, so this one stays: two loaders that restored the former ones would do it out of order.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image.open(path)


def _check_format(path: Path, found: str) -> None:
    expected = FORMATS.get(path.suffix.lower(), (found,))
    if found not in expected:
        suffix = next((end for end, names in FORMATS.items() if found in names), None)
        remedy = f"Rename it to {path.stem}{suffix}" if suffix else "Export it as PNG"
        raise ImageError(f"{path} holds {found} data though its name says {expected[0]}", remedy)


def _convert(image: Image.Image) -> Pixels:
    if imagecodecs and (pixels := _decode_plain(image)) is not None:
        return pixels
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    mode = image.mode
    if mode.startswith(("I", "F")):
        return _scale(np.asarray(image))
    see_through = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    wanted = "RGBA" if see_through else "L" if mode in ("1", "L") else "RGB"
    # `convert` copies where there is nothing to convert: half the time of decoding.
    return np.asarray(image if mode == wanted else image.convert(wanted))


def _decode_plain(image: Image.Image) -> Pixels | None:
    """Decode a PNG that needs no conversion by libpng; None if it does, or if it is damaged."""
    if not isinstance(image, PngImageFile) or image.mode not in ("L", "RGB", "RGBA"):
        return None
    if image.tile[0].args != image.mode:  # other than 8 bits a sample
        return None
    with suppress(Exception):  # Pillow will tell
        body = Path(str(image.filename)).read_bytes()
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


def _scale(samples: np.ndarray) -> Pixels:
    """Bring 16-bit, 32-bit and float samples of a grey image to 0..255, its range kept."""
    if samples.dtype.kind == "f":
        samples = np.nan_to_num(samples, posinf=255.0, neginf=0.0)
        full = 1.0 if samples.max() <= 1.0 else 255.0
    else:
        full = 65535.0 if samples.dtype.itemsize == 2 or samples.max() > 255 else 255.0
    scaled = samples.astype(np.float64) * (255.0 / full)
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


def sha256(pixels: Pixels) -> str:
    """Digest of an image's pixels in C order: equal for equal pixels, whatever the file format."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def save(path: Path, pixels: Pixels) -> None:
    """Write a PNG atomically: the file is whole or not there.

    Raises ImageError if it cannot be written, for example to a full disk.
    """
    remedy = "Free some space or choose another folder with --output"
    with explained(ImageError, f"{path} cannot be saved", remedy), atomic(path) as file:
        file.write(encode_png(pixels))


def encode_png(pixels: Pixels) -> bytes:
    """Encode an image as PNG: each row less the one above it, then compressed.

    Source: Portable Network Graphics (PNG) Specification, W3C, sections 5 and 9.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    rows = pixels.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # the filter Up
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOURS[channels], 0, 0, 0)
    body = isal_zlib.compress(filtered.data, PNG_LEVEL)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes `path` once the body has ended well and is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads of one process may save the same result: a tile that was delivered twice.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep(folder: Path, pid: int | None = None) -> None:
    """Remove what a process that was killed was just writing into a folder with `atomic`.

    Without `pid`, what any process that runs no more was writing.
    """
    for path in folder.glob(".*.tmp"):
        found = re.search(r"\.(\d+)-\d+\.tmp$", path.name)
        if found and (int(found[1]) == pid if pid else not _runs(int(found[1]))):
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def check_writable(folder: Path, option: str = "--output") -> None:
    """Find out before the work starts whether files can be saved; `option` names another folder.

    Raises UsageError if the folder cannot be made or written to.
    """
    remedy = f"Choose another folder with {option}"
    with explained(UsageError, f"The folder {folder} cannot be written", remedy):
        with atomic(folder / "probe"):
            pass
        (folder / "probe").unlink(missing_ok=True)  # by another run that looked just now
