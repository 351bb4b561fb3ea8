"""Messages survive the wire; whatever else comes over it is a `ProtocolError` and costs no memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec, VaeRef
from loravault.formats.outcome import AdapterHashes, GenerationOutcome, MadeImage, Provenance
from loravault.jobs import protocol

ROOT = Path(__file__).parents[2]

text = st.text(st.characters(codec="utf-8"), max_size=40)
number = st.floats(allow_nan=False, allow_infinity=False, width=32)
adapters = st.builds(AdapterUse, name=text, path=text, weight_id=text, te=number, unet=number)
specs = st.builds(
    GenerationSpec,
    base=st.builds(
        BaseRef,
        name=text,
        path=text,
        family=text,
        variant=st.none() | text,
        parts=st.lists(st.tuples(text, text), max_size=3).map(tuple),
    ),
    vae=st.none() | st.builds(VaeRef, name=text, path=text),
    prompt=text,
    negative=text,
    seeds=st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=4).map(tuple),
    width=st.integers(8, 4096),
    height=st.integers(8, 4096),
    steps=st.integers(1, 200),
    cfg=number,
    sampler=text,
    clip_skip=st.integers(1, 12),
    adapters=st.lists(adapters, max_size=3).map(tuple),
    image_format=st.sampled_from(["webp", "png", "jpeg"]),
    written_prompt=text,
)
provenances = st.builds(Provenance, job=text, block_hash=text, fingerprint=text)
made = st.builds(
    MadeImage, path=text, index=st.integers(0, 99), seed=st.integers(0), width=st.just(8), height=st.just(8)
)
hashes = st.builds(AdapterHashes, name=text, weight_id=text, sha256=text, autov2=text, autov3=text)
outcomes = st.builds(
    GenerationOutcome,
    images=st.lists(made, max_size=3).map(tuple),
    warnings=st.lists(text, max_size=3).map(tuple),
    seconds=number,
    unused_keys=st.dictionaries(text, st.integers(0, 999), max_size=3),
    adapter_hashes=st.lists(hashes, max_size=2).map(tuple),
)
orders = st.one_of(
    st.builds(
        protocol.Job,
        id=text,
        spec=specs,
        out_dir=text,
        stem=text,
        provenance=provenances,
        originals=st.none() | text,
        alone=st.booleans(),
        background=st.booleans(),
    ),
    st.builds(protocol.Cancel, text),
    st.builds(protocol.Withdraw, text),
    st.just(protocol.Leave()),
)
answers = st.one_of(
    st.builds(protocol.Hello, st.integers(0, 99), text, st.integers(0)),
    st.builds(protocol.Ready, device=text, versions=st.dictionaries(text, text, max_size=2)),
    st.builds(protocol.Taken, st.lists(text, max_size=3).map(tuple)),
    st.builds(protocol.Returned, text),
    st.builds(protocol.Phase, job=st.none() | text, name=text, deadline_s=number),
    st.builds(protocol.Done, text, outcomes),
    st.builds(protocol.Failed, job=text, message=text, kind=st.sampled_from(["user", "internal", "oom"])),
    st.builds(protocol.Cancelled, job=text, images=st.lists(made, max_size=2).map(tuple)),
    st.builds(protocol.Log, level=st.just("info"), text=text),
)


@settings(max_examples=60, deadline=None)
@given(orders)
def test_an_order_is_one_line_and_comes_back_equal(order: protocol.Order) -> None:
    line = protocol.encode(order)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert protocol.decode_order(line) == order


@settings(max_examples=60, deadline=None)
@given(answers)
def test_an_answer_is_one_line_and_comes_back_equal(answer: protocol.Answer) -> None:
    line = protocol.encode(answer)
    assert line.count(b"\n") == 1
    assert protocol.decode_answer(line) == answer


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | text.map(str.encode) | st.sampled_from([b"[" * 100_000, b'{"type":"done"}', b"1e999"]))
def test_bytes_that_are_no_message_are_a_protocol_error(line: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_answer(line)
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_order(line)


def test_a_hello_of_a_later_version_is_understood_so_that_it_can_be_compared() -> None:
    line = b'{"type":"hello","protocol":9,"version":"3.0","pid":1,"device":"cuda","more":{"a":[1]}}'
    assert protocol.decode_answer(line) == protocol.Hello(9, "3.0", 1)


def test_a_path_that_is_no_unicode_is_a_protocol_error() -> None:
    with pytest.raises(protocol.ProtocolError, match="cannot be written as JSON"):
        protocol.encode(protocol.Cancel("\udce9"))


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.integers(1, 9))
def test_lines_come_out_whatever_pieces_they_came_in(lines: list[bytes], piece: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    splitter = protocol.LineSplitter()
    found = [line for at in range(0, len(stream), piece) for line in splitter.feed(stream[at : at + piece])]
    assert found == [line for line in lines if line.strip()]
    assert splitter.pending == 0


def test_a_line_that_does_not_end_is_refused_at_the_limit_and_forgotten() -> None:
    splitter = protocol.LineSplitter(limit=10)
    assert splitter.feed(b"0123456789") == []
    with pytest.raises(protocol.ProtocolError, match="more than 10 bytes"):
        splitter.feed(b"x")
    assert splitter.pending == 0


def test_an_ended_line_over_the_limit_is_refused_too() -> None:
    with pytest.raises(protocol.ProtocolError):
        protocol.LineSplitter(limit=10).feed(b"ok\n" + b"x" * 11 + b"\n")


def test_progress_counts_images_that_are_drawn_together() -> None:
    half = protocol.Progress(job="j", image=4, batch=4, images=8, step=5, steps=10, deadline_s=1)
    assert half.fraction == 0.75


def test_the_daemons_side_never_imports_torch_or_the_engine() -> None:
    """The supervisor lives in the daemon, which has to stay small."""
    script = (
        "import sys, loravault.jobs.supervisor, loravault.library.imagemeta\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'psutil'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy or any(m.startswith('loravault.engine') for m in sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
