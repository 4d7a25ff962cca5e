"""Small files of every format that is read, each in a folder of its own, and what reads it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxless.datasets import load_dataset, split_names
from boxless.doctor import examine
from boxless.errors import ImageError
from boxless.images import image_size, read_image
from boxless.structures import Dataset

SIZE = (48, 32)
"""Width and height of all images."""


@dataclass(frozen=True)
class Victim:
    """A file that is damaged.

    Args:
        form: its format.
        name: of this kind of it.
        make: writes it, and what it needs, into a folder; returns its path.
        read: reads the folder; returns what it counted as skipped or wrong, lines that differ where more is wrong.
        words: byte strings that mean something in the format.
    """

    form: str
    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    words: Sequence[bytes] = ()


def pixels(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def _good(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels(number).save(folder / name)


# Images.


def _images(suffix: str, **kinds: tuple[Callable[[Image.Image], Image.Image], dict[str, Any]]) -> list[Victim]:
    def make(change: Callable[[Image.Image], Image.Image], options: dict[str, Any]) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            _good(folder, "cat/good.png", "dog/good.png")
            change(pixels(7)).save(folder / f"cat/victim{suffix}", **options)
            return folder / f"cat/victim{suffix}"

        return write

    form = Image.registered_extensions()[suffix]
    return [Victim(form, name, make(*kind), _read_images) for name, kind in kinds.items()]


def _read_images(folder: Path) -> Any:
    """The doctor names the image if it cannot be read, and only then."""
    (file,) = (folder / "cat").glob("victim*")
    report = examine(folder)
    unread = any([str(file)] in one["images"] for one in report["findings"] if one["fault"] == "broken")
    try:
        height, width = read_image(file).shape[:2]
    except ImageError as error:
        message = str(error)
        assert str(file) in message and "\n" not in message, message
        assert unread, f"unread, and not counted: {message}"
        raise
    assert not unread
    assert image_size(file) == (width, height)
    return []


def _same(image: Image.Image) -> Image.Image:
    return image


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, (72, 1)
    return exif


def _mode(mode: str) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.convert(mode)


def _transparent(image: Image.Image) -> Image.Image:
    image.putalpha(image.convert("L"))
    return image


def _deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)


IMAGES = [
    *_images(
        ".jpg",
        baseline=(_same, {}),
        progressive=(_same, {"progressive": True, "exif": _turned()}),
        cmyk=(_mode("CMYK"), {}),
    ),
    *_images(
        ".png",
        plain=(_same, {}),
        palette=(_mode("P"), {"transparency": 0}),
        deep=(_deep, {}),
        transparent=(_transparent, {"exif": _turned()}),
    ),
    *_images(
        ".webp",
        lossy=(_same, {"exif": _turned()}),
        lossless=(_transparent, {"lossless": True}),
        animated=(_same, {"save_all": True, "append_images": [pixels(1)]}),
    ),
    *_images(
        ".tif",
        plain=(_same, {"exif": _turned()}),
        deflated=(_same, {"compression": "tiff_adobe_deflate"}),
        lzw=(_deep, {"compression": "tiff_lzw"}),
        jpeg=(_same, {"compression": "jpeg"}),
        pages=(_same, {"save_all": True, "append_images": [pixels(1)]}),
    ),
]

# Datasets.

_NAMES = ("images/a.png", "images/b.png", "images/c.png")


def _read_dataset(folder: Path) -> Any:
    """What was understood and what was wrong; whatever is returned is a valid dataset."""
    told: list[str] = []
    for split in split_names(folder) or (None,):
        dataset = load_dataset(folder, split)
        _check(dataset)
        told += [dataset.summary, *dataset.warnings]
    assert not [line for line in told if "\n" in line]
    return told


def _check(dataset: Dataset) -> None:
    labels = dataset.image_labels()
    assert labels.shape == (len(dataset), len(dataset.classes)) and len(set(dataset.classes)) == len(dataset.classes)
    for sample in dataset.samples:
        assert sample.path.is_file()
        if sample.annotations is not None:
            boxes = sample.annotations.boxes
            assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
            assert set(sample.annotations.labels) <= sample.tags | sample.unsure


def _voc(folder: Path) -> Path:
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>5</ymin>"
        f"<xmax>{x + 9}</xmax><ymax>20</ymax></bndbox></object>"
        for name, x in (("cat", 3), ("dog", 20))
    )
    for name in "abc":
        _good(folder, f"JPEGImages/{name}.png")
        (folder / "Annotations").mkdir(exist_ok=True)
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    return folder / "Annotations" / "b.xml"


def _listed_voc(folder: Path) -> Path:
    file = _voc(folder)
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    return file


_XML = (b'<?xml version="1.0" encoding="utf-7"?>', b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<object>", b"</name>")


def _coco(folder: Path) -> Path:
    _good(folder, *_NAMES)
    content = {
        "images": [
            {"id": n, "file_name": Path(name).name, "width": SIZE[0], "height": SIZE[1]}
            for n, name in enumerate(_NAMES)
        ],
        "annotations": [
            {"id": n, "image_id": n % 3, "category_id": 1 + n % 2, "bbox": [3, 4, 10, 12], "iscrowd": 0}
            for n in range(5)
        ],
        "categories": [
            {"id": 0, "name": "project", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "project"},
            {"id": 2, "name": "dog", "supercategory": "project"},
        ],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return folder / "annotations" / "instances_train.json"


def _label_studio(folder: Path) -> Path:
    _good(folder, *_NAMES)
    tasks = []
    for name in _NAMES:
        value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 15, "rectanglelabels": ["cat"]}
        polygon = {"points": [[10, 25], [30, 50], [20, 75]], "polygonlabels": ["dog"]}
        result = [
            {"type": "rectanglelabels", "value": value, "original_width": SIZE[0], "original_height": SIZE[1]},
            {"type": "polygonlabels", "value": polygon, "original_width": SIZE[0], "original_height": SIZE[1]},
            {"type": "choices", "value": {"choices": ["owl"]}},
        ]
        tasks.append({"id": 1, "data": {"image": f"/data/upload/1/{name}"}, "annotations": [{"result": result}]})
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return folder / "tasks.json"


def _yolo(folder: Path) -> Path:
    for split in ("train", "val"):
        for name in "ab":
            _good(folder, f"images/{split}/{name}.png")
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
            (folder / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.3\n1 0.25 0.5 0.2 0.3\n")
    (folder / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: [images/val]\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
    )
    return folder / "data.yaml"


def _yolo_labels(folder: Path) -> Path:
    _yolo(folder)
    return folder / "labels" / "train" / "b.txt"


YAML_WORDS = (b"!!python/object/apply:os.abort []", b"&a [*a]", b"<<: *a", b"? :", b"\t", b"- - -", b"!!binary x", b"{")
_CSV = (b",", b";", b"\t", b"|", b'""', b"\xef\xbb\xbf", b"image,", b"\xff", b"-1")


def _table(*rows: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _good(folder, *_NAMES)
        (folder / "table.csv").write_text("\n".join(rows) + "\n")
        return folder / "table.csv"

    return make


DATASETS = [
    Victim("XML", "VOC", _listed_voc, _read_dataset, _XML),
    Victim("XML", "VOC without lists", _voc, _read_dataset, _XML),
    Victim("JSON", "COCO", _coco, _read_dataset),
    Victim("JSON", "Label Studio", _label_studio, _read_dataset),
    Victim("YAML", "YOLO", _yolo, _read_dataset, YAML_WORDS),
    Victim("CSV", "YOLO labels", _yolo_labels, _read_dataset, (b" ", b"nan", b"0 0 0 0 0")),
    Victim("CSV", "tags", _table("image,tags", *(f"{name},cat;dog" for name in _NAMES)), _read_dataset, _CSV),
    Victim(
        "CSV",
        "classes",
        _table("image,split,cat,dog", *(f"{name},train,1,{n % 2}" for n, name in enumerate(_NAMES))),
        _read_dataset,
        _CSV,
    ),
    Victim(
        "CSV",
        "boxes",
        _table("filename,width,height,class,xmin,ymin,xmax,ymax", *(f"{name},48,32,cat,3,4,20,21" for name in _NAMES)),
        _read_dataset,
        _CSV,
    ),
]

VICTIMS = [*IMAGES, *DATASETS]
