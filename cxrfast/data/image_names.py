"""Finds images by the names that other programs give them."""

import os
from collections.abc import Sequence

from cxrfast.errors import CxrfastError


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
