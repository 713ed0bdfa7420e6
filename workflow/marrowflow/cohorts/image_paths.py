"""Paths of images in a manifest: each a file of its own, none outside of the manifest's folder or its archives.

Every folder is listed once and every link followed, so that a manifest of 170,000 rows takes a second or two.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path


def image_problems(folder: Path, images: Sequence[str], lines: Sequence[int]) -> list[str]:
    """Return what is wrong with the images of a manifest, one sentence each; empty when nothing is.

    Parameters
    ----------
    folder
        The manifest's folder.
    images
        Paths as the manifest gives them.
    lines
        The line of each in the manifest.
    """
    problems, inside = _well_formed(images, lines)
    return problems + _file_problems(folder, inside)


def path_problems(images: Sequence[str], lines: Sequence[int]) -> list[str]:
    """Return what the paths themselves have wrong, wherever the images are (arguments as in `image_problems`)."""
    return _well_formed(images, lines)[0]


def archive_problems(
    holders: Mapping[str, Sequence[str]], images: Sequence[str], lines: Sequence[int]
) -> list[str]:
    """Return what is wrong with images that lie in archives: besides their paths, that one is in none or in several.

    Parameters
    ----------
    holders
        The archives that hold each image, by its normal path.
    images, lines
        As in `image_problems`.
    """
    problems, inside = _well_formed(images, lines)
    for image, line in inside.items():
        found = holders.get(posixpath.normpath(image), [])
        if not found:
            problems.append(
                f"row {line}, column 'image': {image!r} is in none of the archives that the cohort table names"
                f"{_slash_hint(image)}; pack it, name its archive in the column 'shards', or delete the row"
            )
        elif len(found) > 1:
            problems.append(
                f"row {line}, column 'image': {image!r} is there {len(found)} times, in {', '.join(found)}; keep one of them"
            )
    return problems


def _well_formed(images: Sequence[str], lines: Sequence[int]) -> tuple[list[str], dict[str, int]]:
    """Return what is wrong with paths as such, and the line of each of the others."""
    problems = []
    first: dict[str, int] = {}
    inside: dict[str, int] = {}
    for image, line in zip(images, lines, strict=True):
        fault = _path_fault(image)
        before = first.setdefault(posixpath.normpath(image), line)
        if fault is None and before != line:
            fault = f"{image!r} stands in row {before} already; keep one of the two rows"
        if fault:
            problems.append(f"row {line}, column 'image': {fault}")
        else:
            inside[image] = line
    return problems, inside


def _path_fault(image: str) -> str | None:
    if not image.strip():
        return "the cell is blank; give the image's path relative to the manifest"
    if image.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", image):
        return f"{image!r} is an absolute path; give it relative to the manifest"
    if ".." in re.split(r"[/\\]", image):
        return f"{image!r} leaves the manifest's folder by '..'; put the image below the folder"
    return None


def _file_problems(folder: Path, images: Mapping[str, int]) -> list[str]:
    """Look for files that are not there and for links that lead out, one directory listing at a time."""
    root = os.path.realpath(folder)
    by_directory: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_directory[posixpath.dirname(image)].append(image)
    problems = []
    for directory, members in by_directory.items():
        real = os.path.realpath(Path(root, directory))
        if not _within(real, root):
            problems.append(
                f"row {images[members[0]]}, column 'image': folder {directory!r} is a link out of the manifest's "
                f"folder ({len(members)} images); copy the images in"
            )
            continue
        try:
            with os.scandir(real) as listing:
                entries = {entry.name: entry for entry in listing}
        except OSError as error:
            problems.append(
                f"row {images[members[0]]}, column 'image': folder {directory!r} cannot be listed "
                f"({error.strerror}; {len(members)} images){_slash_hint(members[0])}; "
                "correct the path or put the folder there"
            )
            continue
        for image in members:
            fault = _file_fault(image, entries, root)
            if fault:
                problems.append(f"row {images[image]}, column 'image': {fault}")
    return problems


def _file_fault(image: str, entries: Mapping[str, os.DirEntry[str]], root: str) -> str | None:
    name = posixpath.basename(image)
    entry = entries.get(name)
    if entry is None:
        alike = [other for other in entries if other.casefold() == name.strip().casefold()]
        hint = f" (there is {alike[0]!r})" if alike else _slash_hint(image)
        return f"{image!r} does not exist{hint}; correct the path, or delete the row"
    if entry.is_symlink() and not _within(os.path.realpath(entry.path), root):
        return f"{image!r} is a link out of the manifest's folder; copy the image in"
    if not entry.is_file():
        return f"{image!r} is not a file; name an image"
    return None


def _slash_hint(image: str) -> str:
    return " (write / between folders)" if "\\" in image else ""


def _within(real: str, root: str) -> bool:
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)
