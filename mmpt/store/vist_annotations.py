"""VIST (SIND) as its authors give it: a JSON file of annotations, and photos by their Flickr ids."""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmpt.store.images import image_format
from mmpt.store.question_writer import Imported
from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import read_json
from mmpt.utils.safe_paths import path_below

__all__ = ["story_items"]

_SUFFIXES = (".jpg", ".jpeg", ".png")
#: Published: no side of a photo is longer, and the quality of its JPEG.
_LONGEST, _QUALITY = 800, 95
_IMAGES = 5


def story_items(annotations: str | Path, images: str | Path) -> Iterator[tuple[str, Callable[[], Imported]]]:
    """Yield the stories of a file for :func:`mmpt.store.question_writer.write_questions`.

    Args:
        annotations: ``{"annotations": [[{..}], ..]}``, each with ``story_id``, ``photo_flickr_id``,
            ``worker_arranged_photo_order`` and ``original_text`` or ``text``.
        images: the folder with ``<photo_flickr_id>.jpg`` or ``.png``.

    Raises:
        DataError: if it is no such file; names the annotation.
    """
    content = read_json(annotations)
    listed = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise DataError(f"{annotations}: no list of annotations of stories")
    stories: dict[str, list[Mapping[str, Any]]] = {}
    for number, one in enumerate(listed):
        record = one[0] if isinstance(one, list) and len(one) == 1 else one
        where = f"{annotations}: annotation {number}"
        if not isinstance(record, dict) or "story_id" not in record:
            raise DataError(f"{where}: expected an object with story_id, found {shown(record)}")
        stories.setdefault(str(record["story_id"]), []).append({**record, "place": where})
    for name, parts in stories.items():
        yield f"{annotations}: story {name}", partial(_story, name, parts, Path(images))


def _story(name: str, parts: list[Mapping[str, Any]], folder: Path) -> Imported:
    try:
        ordered = sorted(parts, key=lambda part: int(part["worker_arranged_photo_order"]))
        photos = [str(part["photo_flickr_id"]) for part in ordered]
        sentences = [str(part.get("original_text") or part["text"]).strip() for part in ordered]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{parts[0]['place']}: story {name}: {error!r}: a key is missing or wrong") from error
    if len(ordered) != _IMAGES:
        raise DataError(f"{parts[0]['place']}: story {name}: {len(ordered)} images, expected {_IMAGES}")

    def images() -> list[bytes]:
        return [_photo(photo, folder, f"{parts[0]['place']}: story {name}") for photo in photos]

    return Imported([(name, images)], {"id": name, "images": name, "sentences": sentences})


def _photo(photo: str, folder: Path, place: str) -> bytes:
    """Return a photo as a JPEG, made smaller if need be; DataError names place and photo."""
    from PIL import Image

    files = [path_below(folder, f"{photo}{suffix}", place) for suffix in _SUFFIXES]
    file = next((path for path in files if os.path.isfile(path)), None)
    if file is None:
        raise DataError(f"{place}: {folder}: image {shown(photo)} is missing")
    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if max(image.size) <= _LONGEST and image_format(content) == "JPEG":
                return content
            smaller = image.convert("RGB")
            smaller.thumbnail((_LONGEST, _LONGEST))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: {file}: no image ({error})") from error
    target = io.BytesIO()
    smaller.save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()
