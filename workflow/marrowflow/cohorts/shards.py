"""Pack a folder of images into TAR archives, for storage that is far away or hates small files.

    python -m marrowflow cohorts.shards --manifest images/manifest.csv --out packed [--images-per-shard 10000]

``--out`` gets the archives and a copy of the manifest, ready to be uploaded as they are, and the line for the cohort table
is printed. Only what the manifest lists is packed, in its order; equal images give equal archives, byte for byte: no times,
no owners, no names but the images'.
"""

from __future__ import annotations

import argparse
import io
import logging
import posixpath
import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.cohorts.image_paths import image_problems
from marrowflow.cohorts.manifest import read_images
from marrowflow.cohorts.places import MOST_SHARDS
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import written_whole

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> None:
    """Pack one hospital's images and print its line for the cohort table."""
    parser = step_parser("cohorts.shards", "Pack a manifest's images into TAR archives beside a copy of it.")
    parser.add_argument(
        "--manifest", required=True, type=existing_file, help="the manifest, beside its images"
    )
    parser.add_argument("--out", required=True, type=Path, help="a new or empty folder")
    parser.add_argument(
        "--images-per-shard",
        type=_positive,
        default=10_000,
        metavar="N",
        help="images in each archive (10000)",
    )
    args = parser.parse_args(argv)
    names = pack_shards(args.manifest, args.out, args.images_per_shard)
    print("cohort\trole\tmanifest\thospital\tsource\tshards")
    print(f"NAME\texternal\t{(args.out / args.manifest.name).as_posix()}\tHOSPITAL\tSOURCE\t{_spelt(names)}")


def pack_shards(manifest: Path, out: Path, images_per_shard: int) -> list[str]:
    """Write the archives and, last, the copy of the manifest; return the archives' names.

    Parameters
    ----------
    manifest
        Beside its images; only its column ``image`` is looked at.
    out
        Folder to write into; made where it is missing.
    images_per_shard
        Images in each archive, the last one excepted.

    Raises
    ------
    UserError
        An image is missing, cannot be read, stands twice or lies outside of the manifest's folder; the folder is not empty;
        there would be too many archives.
    """
    listed, lines = read_images(manifest)
    problems = image_problems(manifest.parent, listed, lines)
    if problems:
        raise UserError(enumerate_problems(f"{manifest} cannot be packed:", problems))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"--out {out} is no empty folder: older archives there would be uploaded with the new ones"
        )
    count = -(-len(listed) // images_per_shard)
    if count > MOST_SHARDS:
        raise UserError(
            f"{len(listed)} images at {images_per_shard} each are {count} archives, and {MOST_SHARDS} are read at most; "
            "raise --images-per-shard"
        )
    width = len(str(count - 1))
    # What the cohort table takes as an archive's name, whatever the manifest is called.
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", manifest.stem)
    names = [f"{stem}_{number:0{width}d}.tar" for number in range(count)]
    for number, name in enumerate(progress(names, "pack", unit="archives")):
        part = listed[number * images_per_shard : (number + 1) * images_per_shard]
        with written_whole(out / name) as beside:
            _pack(manifest.parent, part, beside)
    with written_whole(out / manifest.name) as beside:
        shutil.copyfile(manifest, beside)
    log.info("%d images packed into %d archives in %s", len(listed), count, out)
    return names


def _pack(folder: Path, images: Sequence[str], archive: Path) -> None:
    # The format is named, because the library's default may change, and with it the bytes.
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for image in images:
            data = _read(folder / image)
            # A new one has no time, no owner and no name of either.
            info = tarfile.TarInfo(posixpath.normpath(image))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _read(image: Path) -> bytes:
    try:
        return image.read_bytes()
    except OSError as error:
        raise UserError(
            f"image {image} cannot be read ({error.strerror or error}): see to it, or delete its row in the manifest, then empty "
            "the folder --out and run the same command again"
        ) from error


def _spelt(names: Sequence[str]) -> str:
    """Return the archives as the cohort table may spell them: one name, or a range."""
    first, last = names[0], names[-1]
    if first == last:
        return first
    stem = first.rpartition("_")[0]
    ends = [name.removesuffix(".tar").rpartition("_")[2] for name in (first, last)]
    return f"{stem}_{{{ends[0]}..{ends[1]}}}.tar"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
