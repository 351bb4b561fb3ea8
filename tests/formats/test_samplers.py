"""The names people have for samplers lead to ours, or are refused with the nearest; nothing is substituted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.samplers import SAMPLERS, canonical, nearest


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_canonical_name_is_its_own_in_any_case(name: str) -> None:
    assert canonical(name) == canonical(name.lower()) == canonical(name.upper()) == canonical(f" {name} ") == name


@pytest.mark.parametrize(
    ("name", "schedule", "expected"),
    [
        ("DPM++ 2M", "Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M", "Automatic", "DPM++ 2M Karras"),
        ("DPM++ 2M", None, "DPM++ 2M"),
        ("DPM++ 2M", "Uniform", "DPM++ 2M"),
        ("DPM++ 2M Karras", "Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M", "Exponential", None),
        ("Euler", "Automatic", "Euler"),
        ("Euler", "normal", "Euler"),
        ("Euler", "Karras", None),
        ("Euler a", "Karras", None),
        ("k_euler_a", None, "Euler a"),
        ("euler_ancestral", None, "Euler a"),
        ("k_dpmpp_2m_ka", None, "DPM++ 2M Karras"),
        ("dpmpp_2m", "karras", "DPM++ 2M Karras"),
        ("uni_pc", None, "UniPC"),
        ("EulerAncestralDiscreteScheduler", None, "Euler a"),
        ("ddim", "", "DDIM"),
        ("Heun", None, None),
        ("DPM++ 2M SDE", "Karras", None),
        ("", None, None),
        ("k", None, None),
    ],
)
def test_names_as_a1111_and_others_write_them(name: str, schedule: str | None, expected: str | None) -> None:
    assert canonical(name, schedule) == expected


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("DPM++ SDE Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M SDE", "DPM++ 2M"),
        ("PLMS", "DDIM"),
        ("Heun", "Euler"),
        ("DPM2 a", "Euler a"),
        ("Eulr a", "Euler a"),
        ("uni-p", "UniPC"),
        ("what is this", "Euler a"),
    ],
)
def test_the_nearest_is_the_one_that_behaves_alike(name: str, first: str) -> None:
    assert nearest(name)[0] == first


@given(st.text(max_size=30), st.none() | st.text(max_size=12))
def test_any_text_is_a_sampler_of_ours_or_none_and_always_has_a_nearest(name: str, schedule: str | None) -> None:
    assert canonical(name, schedule) in (*SAMPLERS, None)
    assert nearest(name)
    assert set(nearest(name)) <= set(SAMPLERS)
