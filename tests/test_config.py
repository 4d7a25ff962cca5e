from pathlib import Path

import pytest

from boxless.config import parse, parse_proposals, resolve
from boxless.errors import BoxlessError
from boxless.methods import PRESETS, preset

HEAD = {"method": "cam", "head": {"kind": "localizer"}}


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("training: {epochs: 7, lr: 0.5}\nviews: {scales: [300, 600]}\n")
    config = resolve(HEAD, file, ["training.lr=1e-4", "backbone.freeze=none"], seed=3, backbone=None)
    assert (config.training.epochs, config.training.lr, config.seed) == (7, 1e-4, 3)
    assert config.views.scales == (300, 600)
    assert config.backbone.freeze == "none"
    assert config.test_views.scales == (300, 600)


def test_what_a_run_writes_back_reads_as_the_same() -> None:
    for name in PRESETS:
        config = resolve(preset(name), options=["backbone.output_stride=8"])
        assert parse(config.model_dump(mode="json"), "here") == config


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1"),
        ("training.epoch=3", "training.epoch: no such setting; there are epochs"),
        ("trainings.epochs=3", "trainings: no such setting; there are method, seed"),
        ("head.pool=3", "head.pool: no such setting; there are kind, hidden"),
        ("inference.views.flip=true", "inference.views.flip: no such setting; there are scales, flips"),
        ("head.kind=x", "head"),
        ("seed=-1", "seed: Value error, must be from 0"),
        ("proposals.mode=quality", "proposals: Value error, mode is that of OpenCV's Selective Search"),
        ("head.kernel=3", "kernel is that of the first hidden layer: it needs hidden"),
        ("epochs", "'epochs' is no setting: write key=value"),
        ("training.lr=[", "not valid YAML"),
        ("training=5", "training"),
    ],
)
def test_a_wrong_option_is_named(option: str, complaint: str) -> None:
    with pytest.raises(BoxlessError, match=complaint.replace("[", r"\[")):
        resolve(HEAD, options=[option])


def test_all_complaints_come_at_once() -> None:
    with pytest.raises(BoxlessError, match=r"(?s)views\.scales.*training\.lr"):
        resolve(HEAD, options=["training.lr=-1", "views.scales=[]"])


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("- 1\n")
    with pytest.raises(BoxlessError, match=r"own\.yaml: expected keys"):
        resolve(HEAD, file)
    with pytest.raises(BoxlessError, match=r"missing\.yaml: cannot be read"):
        resolve(HEAD, tmp_path / "missing.yaml")


def test_an_unknown_method_lists_those_that_are() -> None:
    with pytest.raises(BoxlessError, match="'wsdn' is unknown; there are cam, oquab, wsddn, contextlocnet"):
        preset("wsdn")


def test_proposal_options_need_no_prefix() -> None:
    config = parse_proposals(["generator=grid", "proposals.min_area=0.05"])
    assert (config.generator, config.min_area) == ("grid", 0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["head.pooling=average"], "needs pooling=max"), (["head.sharpness=[0, 5]"], "greater than 0")],
)
def test_sharpness_that_does_not_fit_is_refused(options: list[str], message: str) -> None:
    assert resolve(preset("oquab"), options=["head.sharpness=null"]).head.pooling == "max"
    with pytest.raises(BoxlessError, match=message):
        resolve(preset("oquab"), options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["head.source=heatmaps"], "head.source: no such setting; there are kind, reduce"),
        (["head.refinement.stages=0"], "refinement.stages: Input should be greater than or equal to 1"),
        (
            ["head.refinement.heads=2"],
            "refinement.heads: no such setting; there are stages, mining, bags",
        ),
    ],
)
def test_refinement_that_does_not_fit_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(BoxlessError, match=message):
        resolve({"method": "x", "head": {"kind": "detector"}}, options=options)


@pytest.mark.parametrize("freeze", ["none", "2"])
def test_maps_of_several_stages_need_all_of_them_frozen(freeze: str) -> None:
    for name in ("cam", "seeded", "student"):
        assert resolve(preset(name)).hypercolumns
        with pytest.raises(BoxlessError, match=rf"backbone\.freeze={freeze}: {name} reads the maps of several stages"):
            resolve(preset(name), options=[f"backbone.freeze={freeze}"])
    plain = resolve(preset("cam"), options=[f"backbone.freeze={freeze}", "head.objectness=false"])
    assert not plain.hypercolumns
    assert not any(resolve(preset(name)).hypercolumns for name in set(PRESETS) - {"cam", "seeded", "student"})


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("pseudo_labels.folds=1", "pseudo_labels.folds: Input should be greater than or equal to 2"),
        ("pseudo_labels.agreement=1", "pseudo_labels.agreement: Input should be less than 1"),
        ("head.hidden=[]", "head.hidden"),
        ("head.components=[0, 4]", "head.components"),
        ("head.reduce=8", "head.reduce: no such setting; there are kind, components, pool"),
    ],
)
def test_settings_of_the_taught_detector_that_do_not_fit_are_named(option: str, complaint: str) -> None:
    with pytest.raises(BoxlessError, match=complaint):
        resolve(preset("seeded"), options=[option])


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("head.far_weight=2", "head.far_weight: Input should be less than or equal to 1"),
        ("head.hidden=[8]", "head.hidden: no such setting; there are kind, components, channels"),
    ],
)
def test_settings_of_the_student_that_do_not_fit_are_named(option: str, complaint: str) -> None:
    with pytest.raises(BoxlessError, match=complaint):
        resolve(preset("student"), options=[option])


@pytest.mark.parametrize(
    "options",
    [["views.scales=[384, 512]"], ["inference.views.scales=[384, 512]"], ["inference.views.flips=true"]],
)
def test_a_student_looks_at_one_view(options: list[str]) -> None:
    mend = ["inference.views.scales=[512]", "inference.views.flips=false"]
    with pytest.raises(BoxlessError, match=r"one view.*inference\.views\.scales=\[512\] inference\.views\.flips=false"):
        resolve(preset("student"), options=options)
    assert resolve(preset("student"), options=[*options, *mend]).test_views.scales == (512,)
    assert resolve(preset("seeded"), options=options)
    assert resolve(preset("student"), options=["views.flips=true"]).test_views.scales == (512,)
