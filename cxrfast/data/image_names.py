"""Finds images by the names that other programs give them, and refuses names that lead out of the data folder."""

import os
from collections.abc import Sequence

from cxrfast.errors import CxrfastError


def leaves_folder(name: str) -> bool:
    """Whether a path, meant to be relative to a data folder, would lead out of it."""
    if ".." not in name and ":" not in name and "\0" not in name and not name.startswith(("/", "\\")):
        return False  # the usual name, quickly
    parts = name.strip().replace("\\", "/").split("/")
    drive = len(parts[0]) > 1 and parts[0][1] == ":" and parts[0][0].isalpha()
    return "\0" in name or parts[0] == "" or drive or any(part.strip() == ".." for part in parts)


def require_inside(name: str, where: str) -> str:
    """The image's name, unchanged; :class:`CxrfastError` that begins with ``where`` if it leaves the data folder."""
    if leaves_folder(name):
        raise CxrfastError(f"{where}: image {name!r}: expected a path inside the data folder; correct or remove it")
    return name


class ImageIndex:
    """Finds the index of an image by its name, its name without suffix, or the last part of its path.

    :meth:`find` raises :class:`CxrfastError` for a shortened name that several images share.
    """

    def __init__(self, images: Sequence[str]):
        self._exact = {name: n for n, name in enumerate(images)}
        self._images = images
        self._short: dict[str, list[int]] = {}
        for n, name in enumerate(images):
            stem, base = os.path.splitext(name)[0], name.rpartition("/")[2]
            for short in {stem, base, os.path.splitext(base)[0]} - {name}:
                self._short.setdefault(short, []).append(n)

    def find(self, name: str) -> int | None:
        """The index of the image, or None."""
        name = name.replace("\\", "/").removeprefix("./")
        base = name.rpartition("/")[2]
        for text in (name, os.path.splitext(name)[0], base, os.path.splitext(base)[0]):
            if text in self._exact:
                return self._exact[text]
            places = self._short.get(text, ())
            if len(places) > 1:
                first, second = (self._images[place] for place in places[:2])
                raise CxrfastError(f"image {name!r} may be {first} or {second}; give its path in the data folder")
            if places:
                return places[0]
        return None

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def __getitem__(self, name: str) -> int:
        place = self.find(name)
        if place is None:
            raise KeyError(name)
        return place
