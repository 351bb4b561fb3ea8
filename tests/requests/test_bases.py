"""Which base and which VAE a request gets, and what is said when there is none."""

from __future__ import annotations

import pytest

from loravault.formats.generation import BaseRef, VaeRef
from loravault.requests.bases import Defaults, choose_base, choose_vae
from loravault.requests.model import NotFound, Refusal, Resolved
from tests.requests.catalog import DEMO, SD, Library, outcome


def base(name: str, family: str, variant: str | None = None) -> BaseRef:
    return BaseRef(name=name, path=f"/bases/{name}", family=family, variant=variant)


XL, PONY = base("juggernautXL_v9", "sdxl"), base("ponyV6", "sdxl", "pony")
FLUX, SCHNELL = base("flux-dev", "flux", "dev"), base("schnell", "flux", "schnell")
ALL = (SD, XL, PONY, FLUX, DEMO)


@pytest.mark.parametrize("name", ["juggernautXL_v9", "JUGGERNAUTXL_V9.safetensors", " juggernautxl_v9 "])
def test_a_base_goes_by_its_name_in_any_case(name: str) -> None:
    assert choose_base(name, set(), ALL, Defaults()) == XL


def test_an_adapter_without_a_base_gets_its_familys_default() -> None:
    assert choose_base(None, {"sdxl"}, ALL, Defaults("demo")) == XL
    assert choose_base(None, {"sdxl"}, ALL, Defaults("demo", {"sdxl": "PonyV6"})) == PONY
    assert choose_base(None, {"sdxl"}, ALL, Defaults("ponyv6")) == PONY
    assert choose_base(None, {"sdxl"}, ALL, Defaults("demo", {"sdxl": "gone"})) == XL
    assert choose_base(None, set(), ALL, Defaults("demo", {"sdxl": "ponyV6"})) == DEMO
    assert isinstance(choose_base(None, {"wan"}, ALL, Defaults("demo")), NotFound)


def test_a_name_that_is_nearly_right_is_answered_with_the_nearest() -> None:
    assert choose_base("jugernautXL", set(), ALL, Defaults()) == NotFound(("juggernautXL_v9",))


def test_what_is_there_and_cannot_be_used_is_said() -> None:
    reasons = {"old": "it is a pickle"}
    found = choose_base("OLD.ckpt", set(), ALL, Defaults(), reasons)
    assert isinstance(found, NotFound)
    assert found.reason == 'The base "old" cannot be used: it is a pickle.'


def test_a_name_of_the_hub_is_explained() -> None:
    found = choose_base("stabilityai/sdxl-turbo", set(), ALL, Defaults())
    assert isinstance(found, NotFound)
    assert found.reason is not None
    assert (
        "a request does not download one: fetch it with `loravault bases --fetch stabilityai/sdxl-turbo`"
        in found.reason
    )


def test_a_vae_goes_by_its_name() -> None:
    vaes = (VaeRef(name="ft-mse", path="/v/a"), VaeRef(name="sdxl_vae", path="/v/b"))
    assert choose_vae("SDXL_VAE.safetensors", vaes) == vaes[1]
    assert choose_vae("sdxlvae", vaes) == NotFound(("sdxl_vae",))


# ---- in requests

VAE = VaeRef(name="ft-mse", path="/v/ft-mse")


def answer(block: str, properties: str = "", **library: object) -> Resolved | Refusal:
    return outcome(block, properties, Library(bases=(*ALL, SCHNELL), vaes=(VAE,), **library))  # type: ignore[arg-type]


def resolved(block: str, properties: str = "", **library: object) -> Resolved:
    found = answer(block, properties, **library)
    assert isinstance(found, Resolved), found
    return found


def refused(block: str, properties: str = "", **library: object) -> str:
    found = answer(block, properties, **library)
    assert isinstance(found, Refusal), found
    return " ".join(found.messages)


def test_a_variant_has_defaults_of_its_own() -> None:
    assert (resolved("#| base: flux-dev\na cat").steps, resolved("#| base: flux-dev\na cat").cfg) == (28, 3.5)
    assert (resolved("#| base: schnell\na cat").steps, resolved("#| base: schnell\na cat").cfg) == (4, 1.0)
    assert resolved("#| base: schnell\na cat").sampler == "Euler"


def test_flow_models_refuse_samplers_and_sizes_that_they_cannot_draw() -> None:
    words = refused("#| base: flux-dev\n#| sampler: DPM++ 2M Karras\n#| size: 520x512\na cat")
    assert "flux is a flow model and cannot be drawn with it; Euler can" in words
    assert "both sides must be multiples of 16; nearest: 512x512" in words
    assert resolved("#| base: dreamshaper_8\n#| size: 520x512\na cat").width == 520


def test_a_sampler_from_the_configuration_is_for_those_who_have_it() -> None:
    """Else one setting would refuse every Flux request."""
    config = {"sampler": "DPM++ 2M Karras"}
    assert resolved("#| base: flux-dev\na cat", config=config).sampler == "Euler"
    assert resolved("#| base: dreamshaper_8\na cat", config=config).sampler == "DPM++ 2M Karras"


def test_a_vae_is_named_or_refused_and_is_part_of_what_makes_a_picture() -> None:
    plain, other = resolved("a cat"), resolved("#| vae: FT-MSE\na cat")
    assert (plain.vae, other.vae) == (None, VAE)
    assert plain.fingerprint != other.fingerprint
    assert resolved("#| vae: automatic\na cat", "vae: ft-mse").vae is None
    assert 'There is no VAE "ft-mze". Nearest: ft-mse.' in refused("#| vae: ft-mze\na cat")


def test_a_pasted_vae_is_a_wish() -> None:
    block = "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, VAE: {}"
    assert resolved(block.format("ft-mse.safetensors")).vae == VAE
    found = resolved(block.format("other.pt"))
    assert found.vae is None
    assert any('The VAE "other.pt" of the pasted parameters is not here' in one for one in found.warnings)


def test_a_base_that_cannot_be_used_is_said_in_the_answer() -> None:
    assert 'The base "old" cannot be used: it is a pickle.' in refused(
        "#| base: old\na cat", reasons={"old": "it is a pickle"}
    )
