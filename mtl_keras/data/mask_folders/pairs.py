"""Images with their masks, by their names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from mtl_keras.data.files import composed, image_files, list_lines, stem_of
from mtl_keras.data.mask_folders.places import (
    MASK_SUFFIX,
    Item,
    Place,
    image_folder_in,
    is_mask_of,
    mask_folder_in,
    visible_folders,
)
from mtl_keras.data.mask_folders.tables import TABLE
from mtl_keras.data.records import Problems
from mtl_keras.data.splits import split_name


def items_of(root: Path, places: list[Place], problems: Problems, notes: list[str]) -> list[Item]:
    """All images in order, each with its masks; what does not fit together is a problem."""
    items, others = [], []
    for place in places:
        for path in place.loose:
            problems.add(
                path,
                "outside of the splits",
                f"the splits are those folders that images and masks have: "
                f"{', '.join(repr(p.split) for p in places)}; move it into one of them",
            )
        if place.bundles:
            found, left = _bundled(place, problems)
        else:
            found, left = _paired(place, problems)
        items += found
        others += left
    if others:
        shown = ", ".join(p.relative_to(root).as_posix() for p in others[:5])
        notes.append(
            f"{len(others)} files are no images by their names, and are not read: {shown}"
            f"{', …' if len(others) > 5 else ''}."
        )
    if len(places) == 1 and places[0].split == "train" and not places[0].bundles:
        items = _by_lists(root, places, items, problems, notes)
    return items


def _bundled(place: Place, problems: Problems) -> tuple[list[Item], list[Path]]:
    items, others = [], []
    for child in visible_folders(place.images):
        images, masks = image_folder_in(child), mask_folder_in(child)
        names, left = image_files(images) if images is not None else ([], [])
        others += [images / n for n in left] if images is not None else []
        if len(names) != 1:
            problems.add(
                child,
                "not one image",
                f"a folder of an image and its masks should hold one image, in 'images'. Found: "
                f"{names[:5]}",
                image=child.name,
            )
            continue
        path = images / names[0]
        files = []
        if masks is not None:
            found, left = image_files(masks)
            files = [masks / n for n in found]
            others += [masks / n for n in left]
        filename = path.relative_to(place.images).as_posix()
        items.append(Item(place.split, path, filename, files, parts=True))
    return items, others


def _paired(place: Place, problems: Problems) -> tuple[list[Item], list[Path]]:
    names, left = image_files(place.images)
    others = [place.images / n for n in left]
    masks: list[str] = []
    if place.masks == place.images:
        stems = {stem_of(name) for name in names}
        masks = [name for name in names if is_mask_of(stem_of(name), stems)]
        names = [name for name in names if not is_mask_of(stem_of(name), stems)]
        others = [path for path in others if not TABLE.fullmatch(path.name)]
    elif place.masks is not None:
        masks, left = image_files(place.masks)
        others += [place.masks / n for n in left if not TABLE.fullmatch(Path(n).name)]
    keys = Counter(stem_of(name) for name in names)
    whole: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    unused: list[str] = []
    for mask in masks:
        key, above = stem_of(mask), composed(PurePosixPath(mask).parent.as_posix())
        candidates = (
            (whole, key),
            (parts, above),
            (whole, MASK_SUFFIX.sub("", key)),
            (parts, MASK_SUFFIX.sub("", above)),
        )
        for where, name in candidates:
            if name in keys:
                where.setdefault(name, []).append(mask)
                break
        else:
            unused.append(mask)
    items = []
    for name in names:
        key = stem_of(name)
        mine = [*whole.get(key, []), *parts.get(key, [])]
        item = Item(place.split, place.images / name, name, [], parts=key in parts)
        if mine and keys[key] > 1:
            problems.add(
                item.path,
                "images of one name",
                f"{keys[key]} images share the mask {mine[0]!r}; give them names of their own",
                image=name,
            )
            item.bad = True
        elif len(whole.get(key, [])) > 1 or (key in whole and key in parts):
            problems.add(
                place.masks / mine[1],
                "several masks",
                f"the image {name!r} has the mask {mine[0]!r} too; keep one",
                image=name,
            )
            item.bad = True
        else:
            item.masks = [place.masks / m for m in mine]
        items.append(item)
    if any(whole.values()) or any(parts.values()):
        for mask in unused:
            problems.add(
                place.masks / mask,
                "mask without image",
                f"no image in {str(place.images)!r} has the name {stem_of(mask)!r}",
            )
    return items, others


def _by_lists(
    root: Path, places: list[Place], items: list[Item], problems: Problems, notes: list[str]
) -> list[Item]:
    """Splits by `ImageSets/Segmentation/<split>.txt`, where there are such lists."""
    lists = {}
    for file in sorted(root.glob("ImageSets/Segmentation/*.txt")):
        if (split := split_name(file.stem)) is not None:
            lists[split] = file
    if not lists:
        return items
    by_key = {stem_of(item.filename): item for item in items}
    found: dict[str, str] = {}
    for split, file in lists.items():
        for number, line in enumerate(list_lines(file), 1):
            name = composed(line.strip())
            if not name:
                continue
            if name not in by_key:
                problems.add(
                    file,
                    "missing image",
                    f"there is no image of the name {name!r} in {str(places[0].images)!r}",
                    line=number,
                )
            elif name in found:
                problems.add(
                    file,
                    "image in two splits",
                    f"{name!r} is listed before, in {lists[found[name]].name!r}",
                    line=number,
                )
            else:
                found[name] = split
    kept = []
    for key, item in by_key.items():
        if key in found:
            item.split = found[key]
            kept.append(item)
    if len(kept) < len(items):
        notes.append(
            f"{len(items) - len(kept)} of {len(items)} images are in no list of "
            "ImageSets/Segmentation, and are not read."
        )
    places[:] = [Place(s, places[0].images, places[0].masks) for s in dict.fromkeys(found.values())]
    return kept
