"""Claims about what an engine is made of."""

from __future__ import annotations

from toolkit.runtime.census import Census, census_from_dict, warnings_of_census

RTX_INT8 = Census(
    (("correlation", "Int8", "Float", 6), ("kgen", "Float", "Int8", 3), ("kgen", "Int8+Float", "Int8", 1))
)
FUSED = Census((("convolution", "Int8+Int8", "Int8", 6), ("Reformat", "Int8", "Int8", 2)))


def test_a_census_comes_back_from_its_sidecar() -> None:
    assert census_from_dict(RTX_INT8.as_dict()) == RTX_INT8
    assert census_from_dict(None) is None


def test_layers_that_only_convert_are_counted() -> None:
    assert RTX_INT8.conversions == 3
    assert FUSED.conversions == 2


def test_int8_that_does_not_pay_is_said() -> None:
    assert warnings_of_census(FUSED, quantised=True) == ()
    assert "6 of 6 int8 convolutions write floating point" in warnings_of_census(RTX_INT8, quantised=True)[0]
    mixed = Census((("convolution", "Int8", "Int8", 4), ("convolution", "Half", "Half", 2)))
    assert warnings_of_census(mixed, quantised=True) == ("2 of 6 convolutions run in floating point.",)
    none = Census((("convolution", "Half", "Half", 2),))
    assert "No convolution reads int8" in warnings_of_census(none, quantised=True)[0]
    assert warnings_of_census(none, quantised=False) == ()
