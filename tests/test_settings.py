import pytest

from dwindle.errors import TensorError
from dwindle.settings import resolve

TENSORS = {"features.0.weight": 4, "features.3.weight": 4, "head.weight": 2, "head.bias": 1, "odd[0]": 2}


def test_one_value_is_for_all():
    assert resolve(8, TENSORS) == dict.fromkeys(TENSORS, 8)
    assert resolve({}, TENSORS) == {}
    assert resolve(8, {}) == {}


def test_types_go_by_dimensions():
    assert resolve({"conv": 3}, TENSORS) == {"features.0.weight": 3, "features.3.weight": 3}
    assert set(resolve({"linear": 3}, TENSORS)) == {"head.weight", "head.bias", "odd[0]"}
    assert resolve({"conv": 3}, {"only.weight": 2}) == {}


def test_names_count_more_than_patterns_and_those_more_than_types():
    setting = {"features.0.weight": 1, "features.*": 2, "*.weight": 3, "conv": 4, "linear": 5}
    assert resolve(setting, TENSORS) == {
        "features.0.weight": 1,
        "features.3.weight": 3,
        "head.weight": 3,
        "head.bias": 5,
        "odd[0]": 5,
    }
    assert resolve(dict(reversed(setting.items())), TENSORS)["features.3.weight"] == 2


def test_none_leaves_alone_whatever_else_fits():
    assert resolve({"head.weight": None, "*": 2}, TENSORS) == {
        name: 2 for name in TENSORS if name != "head.weight"
    }
    assert resolve({"*.weight": None, "linear": 2, "conv": 2}, TENSORS) == {"head.bias": 2, "odd[0]": 2}


def test_a_full_name_is_no_pattern_whatever_it_looks_like():
    assert resolve({"odd[0]": 2}, {"odd[0]": 2, "odd0": 2}) == {"odd[0]": 2}


@pytest.mark.parametrize(
    ("key", "near"), [("haed.weight", "head.weight"), ("convs", "conv"), ("feature.*", "features.0.weight")]
)
def test_what_fits_nothing_is_refused_with_the_nearest(key, near):
    with pytest.raises(TensorError) as caught:
        resolve({key: 2}, TENSORS)
    assert str(caught.value).startswith(f"{key}: expected the name of a tensor to compress, such as ")
    assert near.split(".")[0] in str(caught.value)


def test_names_case_and_empty_keys():
    with pytest.raises(TensorError, match=r"^HEAD\.WEIGHT: "):
        resolve({"HEAD.WEIGHT": 2}, TENSORS)
    with pytest.raises(TensorError, match=r"^'': expected the name"):
        resolve({"": 2}, TENSORS)
