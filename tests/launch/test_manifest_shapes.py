"""The shapes refuse what a cluster would take in silence."""

import copy
from typing import Any

import pytest

from launch.manifest import problems
from launch.manifest_shapes import COUNT, IMAGE, NAME, SHAPES, pod


@pytest.mark.parametrize("image", ["a/b:1", "a.b:5000/c:v1.2", "a@sha256:" + "0" * 64])
def test_images_that_stay_the_same(image: str) -> None:
    assert IMAGE.fullmatch(image)


@pytest.mark.parametrize("image", ["", "a", "a/b", "a:latest", "a:", "a b:1", "a@sha256:12"])
def test_images_that_may_change_are_refused(image: str) -> None:
    assert not IMAGE.fullmatch(image)


def test_names_and_counts() -> None:
    assert NAME.fullmatch("v2-a")
    assert not NAME.fullmatch("V2")
    assert COUNT.fullmatch("4")
    assert not COUNT.fullmatch("0")


def test_a_pod_asks_for_what_it_limits() -> None:
    shape = pod("main", {"google.com/tpu": COUNT}, {}, {}, ("A",))
    container: dict[str, Any] = {"name": "main", "image": "a:1", "env": [{"name": "A", "value": "1"}]}
    container["resources"] = {"requests": {"google.com/tpu": "4"}, "limits": {"google.com/tpu": "4"}}
    good = {"spec": {"serviceAccountName": "default", "containers": [container]}}
    assert list(problems(good, shape)) == []
    bad = copy.deepcopy(good)
    bad["spec"]["containers"][0]["resources"]["limits"] = {"google.com/gpu": "4"}
    assert len(list(problems(bad, shape))) == 2


def test_each_kind_says_what_it_is() -> None:
    for kind, shape in SHAPES.items():
        assert shape["kind"][0].lower() == kind
