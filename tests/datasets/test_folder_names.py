"""What class folders and their images are called."""

from boxless.datasets import load_dataset


def test_names_may_begin_as_those_of_folders_of_network_disks(tmp_path, image):
    for name in ("cat/@user_cat0.jpg", "@home/1.jpg", "@eaDir/1.jpg", "cat/@Recycle/1.jpg", "@tmp/1.jpg"):
        image(tmp_path / name)
    dataset = load_dataset(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["@home/1.jpg", "cat/@user_cat0.jpg"]
    assert (dataset.classes, dataset.warnings) == (("@home", "cat"), ())
