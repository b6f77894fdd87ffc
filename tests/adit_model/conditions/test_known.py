import json

import pytest

from adit_model.conditions.known import Known, PropertyRange


def test_known_is_what_json_gives_back():
    known = Known(
        sizes={"crystal": {2: 5, 8: 3}, "molecule": {}},
        elements={"crystal": (3, 8, 15)},
        properties={"band_gap": PropertyRange("eV", 0.0, 9.1, 1.2, 1.5)},
        learned=("domain", "num_atoms", "properties"),
    )
    assert Known.from_dict(json.loads(json.dumps(known.as_dict()))) == known
    assert known.domains == ("crystal",)


@pytest.mark.parametrize(
    "data",
    [
        {"sizes": []},
        {"sizes": {"crystal": {"x": 1}}},
        {"sizes": {"crystal": {"1000000000": 1}}},
        {"sizes": {"crystal": {"0": 1}}},
        {"sizes": {"surface": {"3": 1}}},
        {"elements": {"crystal": [119]}},
        {"properties": {"gap": {"unit": "eV", "min": 0, "max": float("nan"), "mean": 0, "std": 1}}},
        {"elements": {"crystal": ["Na"]}},
        {"properties": {"band_gap": {"unit": "eV"}}},
        {"properties": {"band_gap": 1.0}},
    ],
)
def test_what_is_not_readable_is_a_plain_error(data):
    with pytest.raises(ValueError, match="what the weights know is not readable"):
        Known.from_dict(data)
