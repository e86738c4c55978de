import dataclasses
import math
from typing import Any, Literal

import pytest

from plateau.config import UserError, resolve
from plateau.ranges import above, at_least, below, check_options


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1

    def __post_init__(self):
        check_options(self, "part", size=at_least(1, 8))


@dataclasses.dataclass(frozen=True)
class Whole:
    rate: float = 0.5
    share: float | None = None
    sizes: tuple[int, ...] = (1,)
    pair: tuple[float, float] = (0.1, 0.2)
    kind: Literal["a", "b"] = "a"
    factor: Literal[2, 4] = 2
    names: tuple[Literal["x", "y"], ...] = ()
    flag: bool = False
    name: str = ""
    part: Part = Part()
    corpus: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        numbers = {"rate": above(0), "share": below(1), "sizes": at_least(1), "pair": at_least(0)}
        check_options(self, "", **numbers)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rate": 0}, "rate is 0; it must be above 0"),
        ({"rate": math.nan}, "rate is nan; it must be above 0"),
        ({"rate": math.inf}, "rate is inf; it must be above 0"),
        ({"rate": True}, "rate is True; it must be above 0"),
        ({"rate": "1"}, "rate is '1'; it must be above 0"),
        ({"share": 1.0}, "share is 1.0; it must be at least 0 and below 1"),
        ({"sizes": (1, 0)}, r"sizes is \[1, 0\]; each must be a whole number, at least 1"),
        ({"sizes": (1.0,)}, r"sizes is \[1.0\]; each must be a whole number, at least 1"),
        ({"sizes": [1]}, r"sizes is \[1\]; it must be a tuple"),
        ({"pair": (0.0, -1.0)}, r"pair is \[0.0, -1.0\]; each must be at least 0"),
        ({"pair": (0.0,)}, r"pair is \[0.0\]; it must be a list of 2"),
        ({"pair": (0.0, 0.1, 0.2)}, r"pair is \[0.0, 0.1, 0.2\]; it must be a list of 2"),
        ({"kind": "c"}, "kind is 'c'; it must be one of a, b"),
        ({"factor": 3}, "factor is 3; it must be one of 2, 4"),
        ({"names": ("x", "z")}, r"names is \['x', 'z'\]; each must be one of x, y"),
        ({"flag": 1}, "flag is 1; it must be a bool"),
        ({"name": None}, "name is None; it must be a str"),
        ({"part": None}, "part is None; it must be a Part"),
        ({"corpus": []}, r"corpus is \[\]; it must be a dict"),
    ],
)
def test_a_value_out_of_its_range_names_field_value_and_range(values, said):
    with pytest.raises(UserError, match=f"^{said}$"):
        Whole(**values)


def test_good_values_pass():
    Whole(1, 0.0, (2, 3), (0, 5.0), "b", 4, ("y",), True, "n", Part(8), {"hours": 1})


def test_parts_name_their_section_from_a_configuration_too():
    with pytest.raises(UserError, match=r"part\.size is 9; it must be a whole number, at least 1 "):
        resolve(Whole, {}, ["part.size=9"])


def test_a_field_of_numbers_without_a_range_is_a_mistake_of_the_code():
    @dataclasses.dataclass(frozen=True)
    class Forgotten:
        size: int = 1

        def __post_init__(self):
            check_options(self, "")

    with pytest.raises(TypeError, match="no range"):
        Forgotten()
