import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from boxless.metrics import classification_ap


def test_hand_worked_ranking():
    # By falling score: present, absent, present; precision 1 at recall 1/2, 2/3 at recall 1.
    scores = np.array([[0.9], [0.2], [0.5]], np.float32)
    assert classification_ap(scores, np.array([[1], [1], [0]], np.float32))[0] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_unsure_images_are_left_out():
    scores = np.array([[0.9], [0.8], [0.7]], np.float32)
    assert classification_ap(scores, np.array([[np.nan], [1], [0]], np.float32))[0] == 1
    assert classification_ap(scores, np.array([[0], [1], [0]], np.float32))[0] == 0.5


def test_a_class_in_no_image_is_undefined():
    image_labels = np.array([[0, np.nan, 1], [0, np.nan, 0]], np.float32)
    np.testing.assert_array_equal(classification_ap(np.ones((2, 3), np.float32), image_labels), [np.nan, np.nan, 1])


def test_equals_the_enveloped_area_under_scikit_learns_curve():
    random = np.random.default_rng(0)
    for _ in range(200):
        images, classes = random.integers(1, 40), 3
        scores = random.permuted(np.arange(images * classes)).reshape(images, classes) / 7
        image_labels = random.choice([0, 1, np.nan], (images, classes), p=[0.6, 0.3, 0.1])
        image_labels[0] = 1
        expected = []
        for label in range(classes):
            known = ~np.isnan(image_labels[:, label])
            precision, recall, _ = precision_recall_curve(image_labels[known, label], scores[known, label])
            # The curve runs from recall 1 down to 0.
            envelope = np.maximum.accumulate(precision)
            expected.append(np.sum(-np.diff(recall) * envelope[:-1]))
        np.testing.assert_allclose(classification_ap(scores, image_labels), expected, atol=1e-9)
