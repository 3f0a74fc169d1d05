"""CPU time and size of PNG encoders on the sample images: `python benchmarks/png_encoders.py`.

Encoders take turns; the median of the rounds is shown. Every result is decoded and compared.
"""

import io
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
from isal import isal_zlib
from PIL import Image

from studyguide import gaussian_blur, images

ROUNDS = 5
INPUT = Path(__file__).resolve().parents[1] / "images" / "input"


def pillow(level: int) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=level)
        return file.getvalue()

    return encode


def ours(compress: Callable[..., bytes], level: int) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        with patch.object(images.isal_zlib, "compress", lambda data, _: compress(data, level)):
            return images.encode_png(pixels)

    return encode


def main() -> None:
    encoders = {
        "Pillow, level 6 (its default)": pillow(6),
        "Pillow, level 1": pillow(1),
        "Up filter, zlib level 1": ours(zlib.compress, 1),
        "Up filter, ISA-L level 1": ours(isal_zlib.compress, 1),
        "Up filter, ISA-L level 2": ours(isal_zlib.compress, 2),
    }
    blurred = [gaussian_blur(images.load(path)) for path in sorted(INPUT.glob("*.png"))]
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, encode in encoders.items():
            start = time.process_time()
            files = [encode(pixels) for pixels in blurred]
            seconds[name].append(time.process_time() - start)
            sizes[name] = sum(map(len, files))
            for file, pixels in zip(files, blurred, strict=True):
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels), name
    base = statistics.median(next(iter(seconds.values())))
    print("| encoder | ms | / Pillow's default | bytes |\n|---|---|---|---|")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"| {name} | {1000 * middle:.0f} | {middle / base:.3f} | {sizes[name]:,} |")


if __name__ == "__main__":
    main()
