"""LinearProbe and ClassMeans on features: references, left-out answers and temperatures."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import Ridge as Reference

from keras_initx.initializers import ClassMeans, HeadRows, LabelPrior, LinearProbe, read_targets, read_weights
from keras_initx.initializers._ridge import HeldOut, Ridge, add_up
from keras_initx.initializers._temperature import Answers, fit_scale

pytestmark = pytest.mark.tensorflow  # NumPy alone
FORMS = ("binary", "categorical", "numeric")


def rows_of(examples, fan_in, units, positions=1, form="categorical", seed=0):
    """Features about the mean of their class, with uneven weights."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, units, (examples, positions))
    features = 3 + rng.normal(size=(examples, positions, fan_in)) + rng.normal(size=(units, fan_in))[targets]
    if form != "categorical":
        targets = (features - 3) @ rng.normal(size=(fan_in, units)) + rng.normal(
            size=(examples, positions, units)
        )
        targets = (targets > 0).astype(float) if form == "binary" else targets
    weights = rng.uniform(0.2, 2, size=(examples, positions))
    return HeadRows(features, targets, weights / weights.mean(), units, form)


def middle_of(rows, bias):
    return 0.0 if bias else {"binary": 0.5, "categorical": 1 / rows.units, "numeric": 0.0}[rows.form]


def reference(rows, chosen, bias, penalty):
    features = rows.features[chosen].reshape(-1, rows.features.shape[-1])
    targets = rows.dense[chosen].reshape(-1, rows.units) - middle_of(rows, bias)
    fitted = Reference(alpha=penalty, fit_intercept=bias)
    return fitted.fit(features, targets, sample_weight=rows.weights[chosen].ravel())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(40, 7, 3, 1), (12, 30, 3, 1), (20, 7, 3, 4)])
def test_the_regression_and_its_left_out_answers_are_those_of_scikit_learn(form, bias, sizes):
    rows = rows_of(*sizes, form=form)
    ridge = Ridge(rows, bias)
    whole = reference(rows, slice(None), bias, 0.7)
    np.testing.assert_allclose(ridge.kernel(0.7), whole.coef_.T, rtol=1e-6, atol=1e-8)
    held = HeldOut(ridge, rows)
    answers, scores = rows.dense - held.errors(0.7), held.scores(0.7)
    for left in range(sizes[0]):
        rest = np.arange(sizes[0]) != left
        without = reference(rows, rest, bias, 0.7)
        wanted = without.predict(rows.features[left]) + middle_of(rows, bias)
        np.testing.assert_allclose(answers[left], wanted, atol=1e-6)
        mean = middle_of(rows, bias)
        if bias:
            labels = rows.dense[rest].reshape(-1, rows.units)
            mean = np.average(labels, axis=0, weights=rows.weights[rest].ravel())
        np.testing.assert_allclose(scores[left], wanted - mean, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_sums_over_parts_make_the_same_regression(form, bias):
    rows = rows_of(60, 5, 3, 2, form)
    origin = rows.flat[:7].mean(axis=0) if bias else np.zeros(5)
    parts = [
        add_up(
            HeadRows(rows.features[cut], rows.targets[cut], rows.weights[cut], rows.units, form),
            origin,
        )
        for cut in (slice(0, 7), slice(7, 31), slice(31, None))
    ]
    sums = tuple(sum(values) for values in zip(*parts, strict=True))
    sample = slice(0, None, 2)
    few = HeadRows(rows.features[sample], rows.targets[sample], rows.weights[sample], 3, form, origin, sums)
    np.testing.assert_allclose(Ridge(few, bias).kernel(0.3), Ridge(rows, bias).kernel(0.3), atol=1e-9)
    # A row of the sample is left out of the regression on all rows.
    np.testing.assert_allclose(
        HeldOut(Ridge(few, bias), few).scores(0.3),
        HeldOut(Ridge(rows, bias), rows).scores(0.3)[sample],
        atol=1e-9,
    )


def test_a_head_of_numbers_is_the_regression_and_its_r2_that_of_left_out_rows():
    rows = rows_of(50, 4, 2, form="numeric")
    head = LinearProbe(regularization=0.5).solve(rows)
    whole = reference(rows, slice(None), True, 0.5)
    np.testing.assert_allclose(head.kernel, whole.coef_.T, atol=1e-8)
    np.testing.assert_allclose(head.bias, whole.intercept_, atol=1e-7)
    left = whole_error = 0.0
    for one in range(50):
        rest = np.arange(50) != one
        weight, target = rows.weights[one, 0], rows.targets[one, 0]
        answer = reference(rows, rest, True, 0.5).predict(rows.features[one])[0]
        mean = np.average(rows.targets[rest][:, 0], axis=0, weights=rows.weights[rest].ravel())
        left += weight * ((target - answer) ** 2).sum()
        whole_error += weight * ((target - mean) ** 2).sum()
    assert head.held_out == pytest.approx(1 - left / whole_error, rel=1e-6)
    assert head.told.startswith(f"held-out R2 {head.held_out:.2f} (root mean square error ")


def test_the_penalty_of_none_has_the_least_error_on_left_out_rows():
    rows = rows_of(30, 12, 3, seed=3)
    ridge = Ridge(rows, True)
    costs = [
        (rows.weights[..., None] * HeldOut(ridge, rows).errors(one) ** 2).sum() for one in ridge.penalties()
    ]
    assert HeldOut(ridge, rows).best() == ridge.penalties()[int(np.argmin(costs))]
    given, chosen = LinearProbe(HeldOut(ridge, rows).best()).solve(rows), LinearProbe().solve(rows)
    np.testing.assert_array_equal(given.kernel, chosen.kernel)


@pytest.mark.parametrize("form", ["binary", "categorical"])
def test_the_scale_has_the_least_cross_entropy_on_held_out_rows(form):
    rows = rows_of(80, 6, 3, form=form)
    head = LinearProbe(1.0).solve(rows)
    ridge = Ridge(rows, True)
    kernel = ridge.kernel(1.0)
    scale = np.vdot(head.kernel, kernel) / np.vdot(kernel, kernel)
    np.testing.assert_allclose(head.kernel, scale * kernel, rtol=1e-9)
    prior = head.bias + ridge.mean @ head.kernel
    counts = (rows.weights[..., None] * rows.dense).sum((0, 1))
    if form == "categorical":
        np.testing.assert_allclose(prior, np.log((counts + 1) / (80 + 3)))
    else:
        np.testing.assert_allclose(prior, np.log((counts + 1) / (80 - counts + 1)))
    scores = HeldOut(ridge, rows).scores(1.0)[:, 0]

    def loss(at):
        logits, labels = at * scores + prior, rows.dense[:, 0]
        if form == "categorical":
            # one more example, whose label is the prior, takes part
            soft = (80 * labels + np.exp(prior)) / 81
            each = logsumexp(logits, axis=1) - (soft * logits).sum(1)
        else:
            soft = (80 * labels + 1 / (1 + np.exp(-prior))) / 81
            each = (np.logaddexp(0, logits) - soft * logits).sum(1)
        return (rows.weights[:, 0] * each).sum()

    assert loss(scale) < min(loss(0.97 * scale), loss(1.03 * scale))


def test_class_means_are_the_unit_means_of_unit_features_without_the_left_out_row():
    rows = rows_of(30, 5, 3)
    head = ClassMeans().solve(rows)
    unit = rows.features[:, 0] / np.linalg.norm(rows.features[:, 0], axis=-1, keepdims=True)
    weights, labels = rows.weights[:, 0], rows.targets[:, 0]

    def columns(chosen):
        means = [
            np.average(unit[chosen & (labels == c)], axis=0, weights=weights[chosen & (labels == c)])
            for c in range(3)
        ]
        return np.stack([mean / np.linalg.norm(mean) for mean in means], axis=1)

    every = np.ones(30, bool)
    wanted = columns(every)
    np.testing.assert_allclose(head.kernel / np.linalg.norm(head.kernel, axis=0), wanted, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(head.kernel, axis=0), np.linalg.norm(head.kernel[:, 0]))
    np.testing.assert_array_equal(head.bias, 0)
    right = [
        (rows.features[one] @ columns(np.arange(30) != one)).argmax() == labels[one] for one in range(30)
    ]
    assert head.held_out == pytest.approx(np.average(right, weights=weights))


def test_centred_class_means_hold_their_center_in_the_bias():
    rows = rows_of(30, 5, 3)
    head = ClassMeans(center=True).solve(rows)
    mean = np.average(rows.features[:, 0], axis=0, weights=rows.weights[:, 0])
    np.testing.assert_allclose(mean @ head.kernel + head.bias, 0, atol=1e-9)
    moved = HeadRows(rows.features + 100.0, rows.targets, rows.weights, 3, "categorical")
    np.testing.assert_allclose(ClassMeans(center=True).solve(moved).kernel, head.kernel, atol=1e-6)
    without = ClassMeans(center=True).solve(rows, bias=False)  # nothing can hold a center
    np.testing.assert_allclose(without.kernel, ClassMeans().solve(rows, bias=False).kernel)


def test_one_sigmoid_unit_is_the_difference_of_two_classes():
    rows = rows_of(40, 5, 1, form="binary")
    two = HeadRows(rows.features, rows.targets[..., 0].astype(int), rows.weights, 2, "categorical")
    one, pair = ClassMeans().solve(rows), ClassMeans().solve(two)
    np.testing.assert_allclose(one.kernel[:, 0], pair.kernel[:, 1] - pair.kernel[:, 0])
    assert one.held_out == pair.held_out
    with pytest.raises(ValueError, match="ClassMeans needs classes. Received: targets of form 'numeric'"):
        ClassMeans().solve(rows_of(9, 5, 2, form="numeric"))


@pytest.mark.parametrize("law", [LinearProbe(), ClassMeans(), ClassMeans(center=True)])
def test_one_example_of_each_class_is_not_held_out(law):
    rng = np.random.default_rng(0)
    rows = HeadRows(rng.normal(size=(4, 1, 9)), np.arange(4)[:, None], np.ones((4, 1)), 4, "categorical")
    head = law.solve(rows)
    assert head.held_out is None
    assert head.told.startswith("no held-out accuracy: fewer than two classes have two examples")
    logits = rows.features[:, 0] @ head.kernel + head.bias
    assert (logits.argmax(1) == np.arange(4)).all()
    assert np.sqrt((logits - logits.mean(0)).var(0).mean()) == pytest.approx(1)


@pytest.mark.parametrize("law", [LinearProbe(), ClassMeans()])
def test_the_only_example_of_a_class_is_not_held_out(law):
    rows = rows_of(30, 5, 3)
    targets = np.where(np.arange(30)[:, None] == 7, 3, rows.targets)
    features = rows.features.copy()
    features[7] += 20  # far from the others, so that each answer to it would be wrong
    more = HeadRows(features, targets, np.ones((30, 1)), 4, "categorical")
    held = law.solve(more).held_out
    assert held * 29 == pytest.approx(round(held * 29))


@pytest.mark.parametrize("law", [LinearProbe(), ClassMeans()])
def test_a_class_without_an_example_never_wins(law):
    rows = rows_of(60, 5, 3)
    more = HeadRows(rows.features, rows.targets, rows.weights, 5, "categorical")
    head = law.solve(more)
    assert head.note == "classes without an example: 3, 4; their columns are zero"
    np.testing.assert_array_equal(head.kernel[:, 3:], 0)
    assert (rows.features[:, 0] @ head.kernel + head.bias).argmax(1).max() < 3


def test_examples_of_weight_zero_change_nothing():
    rows = rows_of(20, 5, 3)
    rng = np.random.default_rng(1)
    features = np.concatenate([rows.features, rng.normal(size=(9, 1, 5))])
    targets = np.concatenate([rows.targets, rng.integers(0, 3, (9, 1))])
    weights = np.concatenate([rows.weights, np.zeros((9, 1))])
    for law in (LinearProbe(0.3), ClassMeans()):
        plain, padded = law.solve(rows), law.solve(HeadRows(features, targets, weights, 3, "categorical"))
        np.testing.assert_allclose(padded.kernel, plain.kernel, rtol=1e-7, atol=1e-9)
        assert padded.held_out == pytest.approx(plain.held_out)


@pytest.mark.parametrize("law", [LinearProbe(), ClassMeans(), ClassMeans(center=True)])
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_features_that_do_not_vary_leave_the_prior(law, noise):
    targets = np.array([0, 0, 0, 1])[:, None]
    features = (1 + noise * np.random.default_rng(0).normal(size=(4, 1, 3))).astype("float32")
    if isinstance(law, ClassMeans) and law.center and noise:
        features[:] = 1
    head = law.solve(HeadRows(features, targets, np.ones((4, 1)), 2, "categorical"))
    np.testing.assert_array_equal(head.kernel, 0)
    np.testing.assert_allclose(head.bias, np.log([4 / 6, 2 / 6]))
    assert head.note == "the features of all rows are the same: the head holds the frequencies alone"
    one = HeadRows(features, targets[..., None].astype(float), np.ones((4, 1)), 1, "binary")
    np.testing.assert_allclose(law.solve(one).bias, np.log(2 / 4))


@pytest.mark.parametrize(("ones", "zeros"), [(1, 1), (1, 2), (1, 5), (5, 1)])
@pytest.mark.parametrize("law", [LinearProbe(), ClassMeans()])
def test_a_sigmoid_unit_with_one_example_of_a_class_is_not_held_out(law, ones, zeros):
    rng = np.random.default_rng(0)
    targets = np.repeat([1.0, 0.0], [ones, zeros])[:, None, None]
    rows = HeadRows(rng.normal(size=(ones + zeros, 1, 9)), targets, np.ones((ones + zeros, 1)), 1, "binary")
    head = law.solve(rows)
    assert head.held_out is None
    assert head.told.startswith("no held-out accuracy")
    logits = rows.features[:, 0] @ head.kernel + head.bias
    if isinstance(law, LinearProbe):
        assert logits.std() == pytest.approx(1)
        assert head.told.startswith("no held-out accuracy: no unit has two ones and two zeros")
    assert abs(logits).max() < 10


def test_each_sigmoid_unit_is_held_out_by_itself():
    """The accuracy is that of the units with two ones and two zeros, by regressions without the row."""
    rows = rows_of(14, 5, 3, form="binary", seed=2)
    targets = rows.targets.copy()
    targets[:, 0, 1] = np.arange(14) == 4  # one example of a one
    targets[:, 0, 2] = np.arange(14) < 2
    rows = HeadRows(rows.features, targets, np.ones((14, 1)), 3, "binary")
    head = LinearProbe(1.0).solve(rows)
    scale = np.linalg.norm(head.kernel) / np.linalg.norm(Ridge(rows, True).kernel(1.0))
    counts = targets.sum((0, 1))
    prior, right = np.log(counts + 1) - np.log(14 - counts + 1), []
    for one in range(14):
        rest = np.arange(14) != one
        answer = reference(rows, rest, True, 1.0).predict(rows.features[one])[0]
        logits = scale * (answer - targets[rest, 0].mean(0)) + prior
        right.append((logits > 0) == (targets[one, 0] > 0.5))
    assert head.held_out == pytest.approx(np.mean(right, axis=0)[[0, 2]].mean())


@pytest.mark.parametrize("law", [LinearProbe(), ClassMeans()])
def test_rows_of_one_class_alone_are_not_held_out(law):
    rng = np.random.default_rng(0)
    targets = np.array([1, 0, 0, 0, 0])[:, None]
    head = law.solve(HeadRows(rng.normal(size=(5, 1, 9)), targets, np.ones((5, 1)), 2, "categorical"))
    assert head.held_out is None


def test_numbers_that_are_all_the_same_have_no_r2():
    rows = HeadRows(
        np.random.default_rng(0).normal(size=(30, 1, 4)),
        np.full((30, 1, 1), 7.0),
        np.ones((30, 1)),
        1,
        "numeric",
    )
    head = LinearProbe().solve(rows)
    assert head.held_out is None
    assert head.told.startswith("no held-out R2: the targets of all rows are the same, regularization")
    np.testing.assert_allclose(rows.features[:, 0] @ head.kernel + head.bias, 7.0)


def test_names_of_classes_are_refused_with_a_cure():
    names = np.array(["b", "a", "b"])
    for read in (lambda t: read_targets(t, 3, 1, 2, "categorical"), lambda t: LabelPrior().means(t, 2)):
        with pytest.raises(
            ValueError, match=r"must be numbers.*numpy.unique\(targets, return_inverse=True\)"
        ):
            read(names)
        read(np.unique(names, return_inverse=True)[1])


def test_rows_answered_right_have_a_finite_scale():
    scores = np.array([[1.0, -1.0], [-1.0, 1.0]] * 10)
    targets = np.array([[1.0, 0.0], [0.0, 1.0]] * 10)
    answers = Answers(scores, targets, np.ones(20), np.zeros(2), "categorical")
    # the softmax at the optimum is the smoothed target: 1 - 0.5 / 21
    assert fit_scale(answers, 1.0) == pytest.approx(0.5 * np.log((1 - 0.5 / 21) / (0.5 / 21)), rel=1e-6)
    wrong = Answers(-scores, targets, np.ones(20), np.zeros(2), "categorical")
    assert fit_scale(wrong, 1.0) == 0.1  # the logits keep a tenth, and so the order of the scores


@pytest.mark.parametrize(
    ("targets", "units", "form", "message"),
    [
        ([0, 3], 3, "categorical", "be whole numbers from 0 to 2, or rows of 3"),
        ([-1, 0], 3, "categorical", "be whole numbers from 0 to 2, or rows of 3"),
        ([0.5, 1], 3, "categorical", "be whole numbers from 0 to 2, or rows of 3"),
        ([0, 1, 2], 3, "categorical", "hold a class for each of 2 x 1 outputs"),
        ([[0.5, 0.1, 0], [1, 0, 0]], 3, "categorical", "be rows that are at least 0 and sum to 1"),
        ([[0, 2], [1, 0]], 2, "binary", "be zeros and ones"),
        ([0.0, 2.0], 2, "numeric", "hold 2 numbers for each of 2 x 1 outputs"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, units, form, message):
    with pytest.raises(ValueError, match=f"`targets` must {message} for form='{form}'"):
        read_targets(np.array(targets), 2, 1, units, form)


def test_classes_are_read_from_numbers_one_hot_rows_and_bools():
    wanted = np.array([[1], [0]])
    for given in ([1, 0], [[1], [0]], [1.0, 0.0], [[0, 1], [1, 0]], [[0.0, 1.0], [1.0, 0.0]], [True, False]):
        np.testing.assert_array_equal(read_targets(np.array(given), 2, 1, 2, "categorical"), wanted)
    soft = read_targets(np.array([[0.1, 0.9], [1.0, 0.0]]), 2, 1, 2, "categorical")
    np.testing.assert_allclose(soft, [[[0.1, 0.9]], [[1, 0]]])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, np.nan]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="`sample_weight` must hold a number of at least 0"):
        read_weights(np.array(weights), 2, 3)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`regularization` must be"):
        LinearProbe(regularization=0.0)
    with pytest.raises(ValueError, match="`form` must be one of"):
        LinearProbe(form="ordinal")
    with pytest.raises(ValueError, match="`center` must be"):
        ClassMeans(center="yes")


def test_a_decomposition_that_would_take_hours_is_refused():
    rows = HeadRows(np.zeros((1, 1, 20_000)), np.zeros((1, 1), int), np.ones((1, 1)), 2, "categorical")
    with pytest.raises(ValueError, match="`samples` must be at most 16384"):
        LinearProbe().add_up(rows, np.zeros(20_000))
