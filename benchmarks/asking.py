"""What to ask a person, and of which images: mAP against the seconds that the answers take.

    BOXLESS_DATA=shared/data python benchmarks/asking.py --images 300 --seeds 0,1,2
    BOXLESS_DATA=shared/data python benchmarks/asking.py --sets cards --ways counts,points --chart asking.png

The sets and their images are those of `benchmarks/sets.py`, whose runs are used where `--out` has them. A simulated
person answers from the ground truth of the training images: this is the only place where it enters, and it passes
through the file that `boxless review` writes. The ways to ask are in `WAYS`; those that ask about some of the images do
so for every number in `--amounts`. A row gives the answers and the seconds that the papers state for them (`SECONDS`),
area mAP on the split to report on, the mean and range over the seeds, its share of the fully supervised upper bound,
and the share of further objects of a class in an image that are found. A second table has the boxes that the queue of
`boxless ask` and the most uncertain images save, compared with random images, at the same mAP. From 20 boxes on,
training may choose small proposals, which tags and the upper bound have not: add proposals.size=400 for the default
everywhere. A finished run is not trained again.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import typer
from _shared import machine, spread
from chart import BLUE, GREY, INK
from sets import SETS, column, draw, load, measured, run_folder

import boxless
from boxless.evaluation import DatasetPredictions, matched, predict_dataset
from boxless.files import write_json, write_text
from boxless.np_box_ops import iou
from boxless.review.queue import QueryImage, choose
from boxless.structures import Annotations, Dataset, Sample

SECONDS = {"box": 34.5, "yes or no": 1.6, "point": 1.87, "count": 0.9, "tag": 0.0}
"""Of one answer. A box is drawn in 25.5 s and checked in 9 s (Su, Deng, Fei-Fei, AAAI workshops 2012, as added up by
Papadopoulos et al., CVPR 2017), a box is judged in 1.6 s (Papadopoulos et al., CVPR 2016), the centre of an object is
clicked in 1.87 s (CVPR 2017), and objects are counted 38 times as fast as boxed (Gao et al., C-WSL, ECCV 2018). Finding
the images takes no time here, and tags are there before."""
HEAD = ("set", "answers", "seconds", "mAP, area", "of the upper bound", "further objects found")
RIGHT_IOU = 0.5
"""A proposed box of this IoU with an object of its class is said to be right."""
LOST = 0.2
"""Share of the tags that are lost."""

Line = dict[str, Any]


class Answers(NamedTuple):
    """What a simulated person said: lines of labels, and how many answers of which kind (`SECONDS`) these are."""

    lines: list[Line]
    kind: str
    number: int

    @property
    def seconds(self) -> float:
        """Time that they take."""
        return SECONDS[self.kind] * self.number


class Start(NamedTuple):
    """What there is before a person is asked.

    Args:
        dataset: the training images.
        seed: of what is drawn at random.
        queue: gives all of them in the order of `boxless ask`, by the detector that was trained on tags.
        found: gives what this detector predicts.
    """

    dataset: Dataset
    seed: int
    queue: Callable[[], Sequence[QueryImage]]
    found: Callable[[], DatasetPredictions]


class Way(NamedTuple):
    """A way to ask.

    Args:
        ask: from what there is and a number of images to the answers.
        some: whether it asks about so many images; the others ask about all.
    """

    ask: Callable[[Start, int], Answers]
    some: bool = False


class Result(NamedTuple):
    """Of one way and amount on one set: answers and scores, one a seed."""

    answers: list[Answers]
    scores: list[dict[str, Any]]

    @property
    def number(self) -> float:
        """Mean number of answers."""
        return float(np.mean([own.number for own in self.answers]))

    @property
    def seconds(self) -> float:
        """Mean time that the answers take."""
        return float(np.mean([own.seconds for own in self.answers]))

    @property
    def map(self) -> float:
        """Mean area mAP."""
        return float(np.mean(column(self.scores, "mAP_area")))


def main(
    settings: Annotated[list[str] | None, typer.Argument(help="Settings, such as pseudo_labels.rounds=1.")] = None,
    sets: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(SETS),
    ways: Annotated[str | None, typer.Option(help="Of WAYS, separated by commas; all by default.")] = None,
    amounts: Annotated[str, typer.Option(help="Images to ask about, separated by commas.")] = "10,20,40",
    seeds: Annotated[str, typer.Option(help="Separated by commas.")] = "0",
    images: Annotated[int | None, typer.Option(help="Draw so many training images of each set.")] = None,
    method: Annotated[str, typer.Option(help="A method whose head is trained on boxes.")] = "seeded",
    out: Annotated[Path, typer.Option(help="Takes the runs.")] = Path("runs/sets"),
    chart: Annotated[Path | None, typer.Option(help="Image file that shows mAP against minutes.")] = None,
) -> None:
    """Train and evaluate; print the tables and draw the chart."""
    wanted = [
        (name, amount)
        for name in (ways.split(",") if ways else WAYS)
        for amount in (map(int, amounts.split(",")) if WAYS[name].some else (0,))
    ]
    print(f"{method}, seeds {seeds}, {images or 'all'} images, {' '.join(settings or [])}, {machine()}\n")
    print(f"| {' | '.join(HEAD)} |\n" + "|---" * len(HEAD) + "|")
    found: dict[str, dict[tuple[str, int], Result]] = {}
    bounds = {}
    for name in sets.split(","):
        parts = [asked(name, int(seed), wanted, images, method, settings or [], out) for seed in seeds.split(",")]
        bounds[name] = float(np.mean([bound for _, bound in parts]))
        found[name] = {
            key: Result(*map(list, zip(*(part[key] for part, _ in parts), strict=True))) for key in parts[0][0]
        }
        for key, result in found[name].items():
            print(row(name, key, result, bounds[name]), flush=True)
    print("\n| set | images | boxes | mAP, area | boxes of random images for the same |\n|---|---|---|---|---|")
    for name, results in found.items():
        print("".join(saved(name, results)), end="")
    if chart is not None:
        draw_chart(found, bounds, chart)


def asked(
    name: str,
    seed: int,
    wanted: Sequence[tuple[str, int]],
    images: int | None,
    method: str,
    settings: list[str],
    out: Path,
) -> tuple[dict[tuple[str, int], tuple[Answers, dict[str, Any]]], float]:
    """Answers and scores by way and amount, beside those of tags alone, and the mAP of the upper bound."""
    ends = measured(name, seed, images, method, settings, out)
    train, report = load(name, out)
    train = draw(train, images)
    run = out / run_folder(name, method, "tags", images, settings, seed)
    tags = boxless.Detector.load(run)
    found = {("tags", 0): (Answers([], "tag", 0), scored(run, tags, report))}
    predicted = cache(partial(predict_dataset, tags, train.tags_only(), "Uncertainty"))
    start = Start(train, seed, cache(partial(choose, tags, train)), predicted)
    for way, amount in wanted:
        run = out / run_folder(name, method, f"{way}-{amount}", images, settings, seed)
        labels = out / f"{run.name}.jsonl"
        answers = WAYS[way].ask(start, amount)
        write_text(labels, "".join(json.dumps(line) + "\n" for line in answers.lines))
        detector = boxless.train(train, run, labels=labels, method=method, options=settings, seed=seed)
        found[way, amount] = answers, scored(run, detector, report)
    return found, ends["boxes"]["mAP_area"]


def scored(run: Path, detector: boxless.Detector, report: Dataset) -> dict[str, Any]:
    """Scores on the split to report on, with the recall of further objects, which the run folder keeps."""
    known = run / "asking.json"
    if not known.exists():
        found = predict_dataset(detector, matched(detector, report, None), "Evaluate")
        write_json(known, {**found.scores(), "recall_further": found.diagnosis()["recall_further"]})
    scores: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))
    return scores


# Boxes of all objects of some images.


def random_images(start: Start, number: int) -> Answers:
    """Images drawn at random."""
    return boxed(start.dataset, np.random.default_rng(start.seed).permutation(len(start.dataset))[:number].tolist())


def uncertain_images(start: Start, number: int) -> Answers:
    """Images with a tag whose best box scores the least."""
    found, samples = start.found(), start.dataset.samples
    least = {
        sample.path: min((own.scores[own.labels == tag].max(initial=0) for tag in sample.tags), default=1.0)
        for own, sample in zip(found.detections, found.dataset.samples, strict=True)
    }
    rows = [row for row, sample in enumerate(samples) if sample.path in least]
    return boxed(start.dataset, sorted(rows, key=lambda row: least[samples[row].path])[:number])


def queued_images(start: Start, number: int) -> Answers:
    """The images that `boxless ask` chooses."""
    rows = {sample.path: row for row, sample in enumerate(start.dataset.samples)}
    # The samples of a question have no boxes.
    return boxed(start.dataset, [rows[question.sample.path] for question in start.queue()[:number]])


def boxed(dataset: Dataset, rows: Sequence[int]) -> Answers:
    """All objects of these images are boxed."""
    lines = [answer(dataset.samples[row], dataset.classes) for row in rows if dataset.samples[row].annotations]
    return Answers(lines, "box", sum(len(line["boxes"]) for line in lines))


def answer(sample: Sample, classes: tuple[str, ...]) -> Line:
    """The line of one image; difficult objects get no box, and leave their class incomplete."""
    own = sample.annotations
    assert own is not None
    pairs = zip(own.boxes[~own.ignore].tolist(), own.labels[~own.ignore].tolist(), strict=True)
    boxes = [{"class": classes[label], "xyxy": box, "state": "right"} for box, label in pairs]
    difficult = {classes[label] for label in own.labels[own.ignore]}
    complete = sorted({str(box["class"]) for box in boxes} - difficult)
    return {"image": sample.path.as_posix(), "boxes": boxes, "complete": complete}


# Answers that take less time.


def judged_boxes(start: Start, number: int) -> Answers:
    """Yes or no to the boxes that `boxless ask` proposes on the images that it chooses."""
    lines: list[Line] = []
    truth = {sample.path: own for sample, own in annotated(start.dataset)}
    for question in start.queue()[:number]:
        if (own := truth.get(question.sample.path)) is not None:
            names = [start.dataset.classes[label] for label in question.proposed.labels]
            hits = rights(question.proposed.boxes, question.proposed.labels, own)
            pairs = zip(names, question.proposed.boxes.tolist(), hits, strict=True)
            boxes = [{"class": name, "xyxy": box, "state": "right" if hit else "wrong"} for name, box, hit in pairs]
            lines.append({"image": question.sample.path.as_posix(), "boxes": boxes})
    return Answers(lines, "yes or no", sum(len(line["boxes"]) for line in lines))


def rights(boxes: Any, labels: Any, own: Annotations) -> list[bool]:
    """Whether boxes have the IoU of a right one with an object of their class."""
    overlaps = np.where(labels[:, None] == own.labels, iou(boxes, own.boxes), 0)
    found: list[bool] = (overlaps.max(axis=1, initial=0) >= RIGHT_IOU).tolist()
    return found


def counted_objects(start: Start, number: int) -> Answers:
    """The number of objects of every tag; where some are difficult, at least so many."""
    lines: list[Line] = []
    for sample, own in annotated(start.dataset):
        counts: dict[str, int | str] = {}
        for tag in sorted(sample.tags):
            easy, every = (own.labels[~own.ignore] == tag).sum(), (own.labels == tag).sum()
            counts[start.dataset.classes[tag]] = int(easy) if easy == every else f"{easy}+"
        lines.append({"image": sample.path.as_posix(), "counts": counts})
    return Answers(lines, "count", sum(len(line["counts"]) for line in lines))


def clicked_centres(start: Start, number: int) -> Answers:
    """The centre of every object that is not difficult."""
    lines: list[Line] = []
    for sample, own in annotated(start.dataset):
        centres = (own.boxes[~own.ignore].reshape(-1, 2, 2).mean(axis=1)).tolist()
        names = [start.dataset.classes[label] for label in own.labels[~own.ignore]]
        points = [{"class": name, "xy": xy} for name, xy in zip(names, centres, strict=True)]
        lines.append({"image": sample.path.as_posix(), "points": points})
    return Answers(lines, "point", sum(len(line["points"]) for line in lines))


def annotated(dataset: Dataset) -> list[tuple[Sample, Annotations]]:
    """The images with a tag and ground truth."""
    return [(one, one.annotations) for one in dataset.samples if one.tags and one.annotations is not None]


# Tags that are lost.


def unknown_tags(start: Start, number: int) -> Answers:
    """Some of the tags are not known."""
    return lost_tags(start, None)


def forgotten_tags(start: Start, number: int) -> Answers:
    """The same were forgotten, so that they say that the class is not there."""
    return lost_tags(start, False)


def lost_tags(start: Start, instead: bool | None) -> Answers:
    """A share of the tags, drawn at random, is replaced."""
    samples = start.dataset.samples
    tags = [(row, tag) for row, sample in enumerate(samples) for tag in sorted(sample.tags)]
    lost = np.random.default_rng(start.seed).permutation(len(tags))[: round(LOST * len(tags))]
    said: dict[int, dict[str, bool | None]] = {}
    for row, tag in (tags[number] for number in sorted(lost.tolist())):
        said.setdefault(row, {})[start.dataset.classes[tag]] = instead
    lines: list[Line] = [{"image": samples[row].path.as_posix(), "tags": own} for row, own in said.items()]
    return Answers(lines, "tag", len(lost))


WAYS = {
    "random": Way(random_images, some=True),
    "uncertain": Way(uncertain_images, some=True),
    "ask": Way(queued_images, some=True),
    "yes-no": Way(judged_boxes, some=True),
    "counts": Way(counted_objects),
    "points": Way(clicked_centres),
    "unknown": Way(unknown_tags),
    "forgotten": Way(forgotten_tags),
}


# What is printed and drawn.


def row(name: str, key: tuple[str, int], result: Result, bound: float) -> str:
    """A row of the first table."""
    way, amount = key
    what = f"{way}, {amount} images" if amount else way
    answers = f"{what}: {result.number:.0f} x {result.answers[0].kind}" if result.number else what
    scores = f"{spread(column(result.scores, 'mAP_area'), 3)} | {result.map / bound:.2f}"
    further = spread(column(result.scores, "recall_further"), 3)
    return f"| {name} | {answers} | {result.seconds:.0f} | {scores} | {further} |"


def saved(name: str, results: dict[tuple[str, int], Result]) -> list[str]:
    """Rows of the second table: boxes of random images that give the mAP that a queue gives."""
    random = [results["tags", 0], *(result for (way, _), result in results.items() if way == "random")]
    random.sort(key=lambda result: result.number)
    rows = []
    for (way, amount), result in results.items():
        if way in ("uncertain", "ask") and len(random) > 1:
            same = boxes_for(result.map, random)
            rows.append(f"| {name} | {way}, {amount} | {result.number:.0f} | {result.map:.3f} | {same} |\n")
    return rows


def boxes_for(score: float, curve: Sequence[Result]) -> str:
    """The boxes at which a curve first reaches an mAP, on straight lines between its points."""
    for before, after in pairwise(curve):
        if before.map >= score:
            return f"{before.number:.0f}"
        if after.map >= score:
            share = (score - before.map) / (after.map - before.map)
            return f"{before.number + share * (after.number - before.number):.0f}"
    return f"more than {curve[-1].number:.0f}"


def draw_chart(found: dict[str, dict[tuple[str, int], Result]], bounds: dict[str, float], out: Path) -> None:
    """MAP against minutes, a line or a mark a way, on each set."""
    figure, axes = plt.subplots(1, len(found), figsize=(1 + 3.4 * len(found), 4.2), layout="constrained", squeeze=False)
    colours = {
        "random": GREY,
        "uncertain": INK,
        "ask": BLUE,
        "yes-no": "#009e73",
        "counts": "#d55e00",
        "points": "#cc79a7",
    }
    for axis, (name, results) in zip(axes[0], found.items(), strict=True):
        start = results["tags", 0]
        axis.axhline(bounds[name], color=GREY, linestyle="--", linewidth=1, zorder=0)
        for way, colour in colours.items():
            points = [result for (own, _), result in results.items() if own == way]
            if points:
                line = [start, *points]
                minutes, maps = [one.seconds / 60 for one in line], [one.map for one in line]
                axis.plot(minutes, maps, "o-", color=colour, label=way, markersize=4)
        axis.set_title(name, loc="left", fontsize=11)
        axis.set_xlabel("minutes of a person's time", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("mAP50", fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=10)
    figure.savefig(out, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
