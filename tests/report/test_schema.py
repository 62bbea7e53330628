import copy
import json
import math

import pytest

from research.report.schema import check_result
from tests.report.example import example_result


def fields(value, path=()):
    """Every (path to an object, name) in the schema part of the example; ledgers and versions are free."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if path[-1:] not in (("versions",), ("detail",), ("layers",), ("arms",)):
                yield path, name
            yield from fields(inner, (*path, name))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:1]):
            yield from fields(inner, (*path, i))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def test_the_example_holds_the_schema_and_survives_json():
    example = example_result()
    assert check_result(example) is example
    assert check_result(json.loads(json.dumps(example))) == example


def test_further_fields_are_allowed():
    example = example_result()
    example["rows"][0]["pck"] = 0.5
    check_result(example)


@pytest.mark.parametrize(("path", "name"), list(fields(example_result())), ids=str)
def test_every_missing_field_is_named(path, name):
    broken = example_result()
    del at(broken, path)[name]
    with pytest.raises(ValueError, match=rf"{name} is missing") as caught:
        check_result(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("rows", 1, "ms_referee"), math.nan, r"rows\[1\].ms_referee is nan; write null"),
        (("rows", 1, "mj"), math.inf, r"rows\[1\].mj is inf"),
        (("rows", 0, "mj"), "0.2", r"rows\[0\].mj must be a number, not str"),
        (("rows", 0, "mj"), True, r"rows\[0\].mj must be a number, not bool"),
        (("rows", 2, "row"), None, r"rows\[2\].row must be int, not null"),
        (("rows", 2, "name"), 3, r"rows\[2\].name must be str, not int"),
        (("rows",), [], "rows is empty"),
        (("rows",), {}, "rows must be a list, not dict"),
        (("rows", 3, "arm"), "v3", r"rows\[3\].arm is 'v3'; arms has"),
        (("n",), 0, "n is 0"),
        (("n",), True, "n must be int"),
        (("energy",), None, "energy must be an object, not null"),
        (("arms", "v1", "train", "loss"), [1.0], "arms.v1.train has lists of different lengths"),
        (("arms", "v1", "layers", "Ethos-U85-128", 0, "op"), 1, r"Ethos-U85-128\[0\].op must be str"),
        (("gallery", 0, "v2"), [[0.1, 0.2]] * 20, r"gallery\[0\].v2 must be 21 pairs"),
        (("gallery", 1, "true"), [[0.1]] * 21, r"gallery\[1\].true must be 21 pairs"),
    ],
)
def test_a_wrong_value_is_named(path, value, message):
    broken = copy.deepcopy(example_result())
    at(broken, path[:-1])[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        check_result(broken)
