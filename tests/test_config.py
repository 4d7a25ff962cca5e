import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from boxless.config import HEADS, Config, HeadConfig, Section, parse, parse_proposals, resolve
from boxless.errors import BoxlessError
from boxless.methods import PRESETS, MILConfig, OquabConfig, preset
from boxless.yaml_keys import ValueDumper, ValueLoader

CAM = {"method": "cam", "head": {"kind": "cam"}}


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("training: {epochs: 7, lr: 0.5}\nviews: {scales: [300, 600]}\n")
    config = resolve(CAM, file, ["training.lr=1e-4", "backbone.freeze=none"], seed=3, backbone=None)
    assert (config.training.epochs, config.training.lr, config.seed) == (7, 1e-4, 3)
    assert config.views.scales == (300, 600)
    assert config.backbone.freeze == "none"
    assert config.test_views.scales == (300, 600)
    assert resolve(CAM, file, ["training.lr=1e-4"], training={"lr": 2}).training.lr == 2


def test_numbers_are_read_alike_in_a_file_and_as_options(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("training: {steps: 1e3, lr: .1e-3, monitor: '1e5'}\nviews: {scales: [3e2]}\n")
    options = ["training.steps=1e3", "training.lr=1e-4", "training.monitor='1e5'", "views.scales=[3e2]"]
    for config in (resolve(CAM, file), resolve(CAM, options=options)):
        training = config.training
        assert (training.steps, training.lr, training.monitor, config.views.scales) == (1000, 1e-4, "1e5", (300,))
        written = yaml.dump(config.model_dump(mode="json"), Dumper=ValueDumper)
        assert parse(yaml.load(written, Loader=ValueLoader), "itself") == config


def test_a_written_configuration_reads_as_the_same() -> None:
    for name in PRESETS:
        config = resolve(preset(name), options=["backbone.output_stride=8"])
        assert parse(config.model_dump(mode="json"), "here") == config


def test_the_head_has_the_settings_of_its_kind() -> None:
    for name in PRESETS:
        head = resolve(preset(name)).head
        assert type(head) is HEADS[head.model_dump()["kind"]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1"),
        ("training.epoch=3", "training.epoch: no such setting; there are epochs"),
        ("training.schedule=step", "training.schedule: no such setting; there are epochs"),
        ("training.bias_lr_factor=0", "training.bias_lr_factor: Input should be greater than 0"),
        ("training.warmup_steps=-1", "training.warmup_steps: Input should be greater than or equal to 0"),
        ("training.drops=[1.5]", "training.drops.0: Input should be less than 1"),
        ("trainings.epochs=3", "trainings: no such setting; there are method, seed"),
        ("head.pool=3", "head.pool: no such setting; there are kind, threshold, objectness"),
        ("inference.views.flip=true", "inference.views.flip: no such setting; there are scales, flips"),
        (
            "training.monitor=010",
            "monitor: Input should be a valid string; put a text that reads as",
        ),
        ("pseudo_labels.seeds=[cam,cam]", "pseudo_labels.seeds: cam given twice"),
        ("views.scales=[12000]", "views.scales.0: Input should be less than or equal to 10000"),
        ("proposals.min_side=20000", "proposals.min_side: Input should be less than or equal to 10000"),
        ("inference.min_score=2", "inference.min_score: Input should be less than or equal to 1"),
        ("views={scales: [128], scales: [256]}", "the value is not valid YAML (scales given twice)"),
        ("inference.max_boxes=20000", "inference.max_boxes: Input should be less than or equal to 10000"),
        ("inference.views={scales: [300, 320, 340, 360, 380, 400, 420, 440, 460], flips: true}", "are 18 views of an"),
        ("head.kind=x", "head.kind 'x' is unknown; there are cam"),
        ("seed=-1", "seed: must be from 0"),
        ("proposals.mode=quality", "proposals.mode: no such setting; there are generator, size"),
        ("epochs", "'epochs' is no setting: write key=value"),
        ("training.lr=[", "not valid YAML"),
        ("training=5", "training"),
    ],
)
def test_a_wrong_option_is_named(option: str, message: str) -> None:
    with pytest.raises(BoxlessError, match=re.escape(message)):
        resolve(CAM, options=[option])


def test_a_configuration_without_a_kind_of_head_names_those_that_there_are() -> None:
    for head in ({}, {"head": {}}, {"head": 5}):
        with pytest.raises(BoxlessError, match=r"config\.yaml does not fit:\s+head\.kind: missing; there are cam"):
            parse({"method": "x", **head}, "config.yaml")


def test_all_errors_are_named_at_once() -> None:
    with pytest.raises(BoxlessError, match=r"(?s)views\.scales.*training\.lr"):
        resolve(CAM, options=["training.lr=-1", "views.scales=[]"])


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("- 1\n")
    with pytest.raises(BoxlessError, match=r"own\.yaml: expected keys"):
        resolve(CAM, file)
    with pytest.raises(BoxlessError, match=r"missing\.yaml: cannot be read"):
        resolve(CAM, tmp_path / "missing.yaml")


def test_proposal_options_need_no_prefix() -> None:
    config = parse_proposals(["generator=grid", "proposals.min_area=0.05"])
    assert (config.generator, config.min_area) == ("grid", 0.05)
    with pytest.raises(BoxlessError, match=r"the configuration of proposals does not fit:\s+sizes: no such setting"):
        parse_proposals(["sizes=3"])


def settings_of(section: type[Section], key: str = "") -> Iterator[str]:
    """The keys of all settings, `head.kind` included; those of a nested section count, and not the section itself."""
    for name, field in section.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        nested = [kind for kind in kinds if issubclass(kind, Section)]
        if HeadConfig in nested:
            nested = list(HEADS.values())
        for kind in nested:
            yield from settings_of(kind, f"{key}{name}.")
        if not nested:
            yield key + name


def test_all_methods_together_have_few_settings() -> None:
    assert len(found := set(settings_of(Config))) <= 60, sorted(found)


@pytest.mark.parametrize(
    ("method", "options", "scales"),
    [
        ("seeded", ["views.scales=[1024]"], (1024,)),
        ("contextlocnet", [], (358, 512)),
        ("oquab", [], (512,)),
        ("seeded", ["views.scales=[1024]", "inference.views.scales=[640]"], (640,)),
    ],
)
def test_flips_leave_the_test_scales(method: str, options: list[str], scales: tuple[int, ...]) -> None:
    config = resolve(preset(method), options=[*options, "inference.views.flips=true"])
    assert (config.test_views.scales, config.test_views.flips) == (scales, True)
    assert parse(config.model_dump(mode="json"), "itself") == config


def test_a_configuration_can_be_pickled() -> None:
    config = resolve(preset("seeded"), options=["proposals.size=400"])
    again = pickle.loads(pickle.dumps(config))
    assert again == config and type(again) is type(config)
    assert again.proposals.model_fields_set == {"size"}


# Heads.


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("oquab", "head.sharpness=[0, 5]", "greater than 0"),
        ("oquab", "head.pooling=average", "head.pooling: no such setting; there are kind, hidden"),
        ("cam", "head.hidden=[8]", "head.hidden: no such setting; there are kind, threshold"),
        ("cam", "head.threshold=1", r"head\.threshold: Input should be less than 1"),
        ("wsddn", "head.source=heatmaps", "head.source: no such setting; there are kind, unit_rms"),
        ("oicr", "head.refinement.heads=2", "refinement.heads: no such setting; there are mining, ignore"),
        ("seeded", "pseudo_labels.folds=1", "pseudo_labels.folds: Input should be greater than or equal to 2"),
        ("seeded", "pseudo_labels.consensus_iou=1", "pseudo_labels.consensus_iou: Input should be less than 1"),
        ("seeded", "head.hidden=[]", "head.hidden"),
        ("oquab", "head.hidden=[0]", "head.hidden.0"),
        ("seeded", "head.samples=[40, 0, 16]", r"head\.samples\.1: Input should be greater than or equal to 1"),
        ("seeded", "head.pca_dims=[0, 4]", "head.pca_dims"),
        ("seeded", "head.reduce=8", "head.reduce: no such setting; there are kind, pca_dims, pool"),
        ("student", "head.hidden=[8]", "head.hidden: no such setting; there are kind, pca_dims"),
    ],
)
def test_a_wrong_setting_of_a_head_is_named(method: str, option: str, message: str) -> None:
    with pytest.raises(BoxlessError, match=message):
        resolve(preset(method), options=[option])


def test_a_kernel_needs_a_hidden_layer() -> None:
    with pytest.raises(BoxlessError, match="kernel is that of the first hidden layer: it needs hidden"):
        resolve(preset("oquab"), options=["head.kernel=3", "head.hidden=[]"])
    head = resolve(preset("oquab"), options=["head.kernel=3", "head.sharpness=null"]).head
    assert isinstance(head, OquabConfig) and (head.kernel, head.sharpness) == (3, None)


def test_a_mining_rule_is_looked_up_before_training_and_not_where_a_run_is_loaded() -> None:
    head = resolve(preset("oicr"), options=["head.refinement.mining=mine"]).head
    assert isinstance(head, MILConfig)
    with pytest.raises(BoxlessError, match="mining 'mine' is unknown; there are top, clusters, spread"):
        head.check()
    resolve(preset("wsddn")).head.check()


@pytest.mark.parametrize("freeze", ["none", "2"])
def test_maps_of_several_stages_need_all_of_them_frozen(freeze: str) -> None:
    for name in ("cam", "seeded", "student"):
        assert resolve(preset(name)).head.hypercolumns
        with pytest.raises(BoxlessError, match=rf"backbone\.freeze={freeze}: {name} reads the maps of several stages"):
            resolve(preset(name), options=[f"backbone.freeze={freeze}"])
    plain = resolve(preset("cam"), options=[f"backbone.freeze={freeze}", "head.objectness=false"])
    assert not plain.head.hypercolumns
    others = ("oquab", "wsddn", "contextlocnet", "oicr", "pcl", "mist")
    assert not any(resolve(preset(name)).head.hypercolumns for name in others)


@pytest.mark.parametrize(
    "options",
    [["views.scales=[384, 512]"], ["inference.views.scales=[384, 512]"], ["inference.views.flips=true"]],
)
def test_a_student_predicts_in_one_view(options: list[str]) -> None:
    fix = ["inference.views.scales=[512]", "inference.views.flips=false"]
    with pytest.raises(BoxlessError, match=r"give one: inference\.views\.scales=\[512\] inference\.views\.flips=false"):
        resolve(preset("student"), options=options)
    assert resolve(preset("student"), options=[*options, *fix]).test_views.scales == (512,)
    assert resolve(preset("seeded"), options=options)
    assert resolve(preset("student"), options=["views.flips=true"]).test_views.scales == (512,)


def test_an_unknown_method_is_named_with_those_that_there_are() -> None:
    with pytest.raises(BoxlessError, match="'wsdn' is unknown; there are seeded, student, cam, oquab, wsddn"):
        preset("wsdn")
