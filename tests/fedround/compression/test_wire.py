"""What arrives of a compressed vector: unbiased, or all of it in the end; as long as the plan says; one file for each."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedround import codec
from fedround.compression import quantised, sketch, sparse, wire
from fedround.compression.spec import CountSketch, Quantised, TopK, is_unbiased
from fedround.errors import CodecError, ContractError
from fedround.values import parse

SEED = bytes(range(32))
KINDS = [Quantised(bits=8), Quantised(bits=4), TopK(share=0.1), TopK(share=0.001), CountSketch(rows=3, size=0.3, share=0.1)]
TENSORS = {"quantised": 2, "top_k": 2, "count_sketch": 1}
SIZES = [1, 2, 7, 1023, 1024, 1025, 5000]
each_kind = pytest.mark.parametrize("how", KINDS, ids=str)
VECTORS = st.integers(1, 60).flatmap(lambda size: arrays(np.float32, size, elements=st.floats(-1e6, 1e6, width=32)))


def draws(seed=0):
    return np.random.default_rng(seed).random


def vector(size, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def arrives(vector_D, how, seed=0) -> np.ndarray:
    return wire.expanded(wire.compress(vector_D, how, draws(seed), SEED), how, len(vector_D), SEED)


def data(body, how, size) -> bytearray:
    return bytearray(body[len(wire.form(how, size).header):])


def read(section, how, size) -> np.ndarray:
    blocks = wire.expand(lambda start, count: bytes(section[start:start + count]), how, size, SEED, "north")
    return np.concatenate(list(blocks))


# -- files -------------------------------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_as_long_as_the_plan_says_and_safetensors_reads_it(how, size):
    form = wire.form(how, size)
    for some in (vector(size), np.zeros(size, np.float32)):
        body = wire.compress(some, how, draws(), SEED)
        assert len(body) == form.size_bytes
        assert codec.check_header(body, len(body), form, "north") == len(form.header)
        assert len(safetensors.numpy.load(body)) == TENSORS[how.name]
        assert wire.expanded(body, how, size, SEED).shape == (size,)


def test_savings():
    """Of four bytes a number, for a million of them."""
    saved = {str(how): round(1 - wire.form(how, 10 ** 6).size_bytes / 4e6, 3) for how in KINDS}
    assert list(saved.values()) == [0.749, 0.874, 0.8, 0.998, 0.7]


@each_kind
@given(vector_D=VECTORS)
def test_same_vector_same_bytes_and_what_arrives_is_finite(how, vector_D):
    one, same = (wire.compress(vector_D, how, draws(), SEED) for _ in range(2))
    assert one == same
    assert np.isfinite(wire.expanded(one, how, len(vector_D), SEED)).all()


@pytest.mark.parametrize("rows", [2, 3])
def test_a_sketch_of_the_largest_numbers_there_are_is_finite(rows):
    how, vector_D = CountSketch(rows=rows, size=0.5, share=0.5), np.full(64, np.finfo(np.float32).max, np.float32)
    assert np.isfinite(wire.expanded(wire.compress(vector_D, how, draws(), SEED), how, 64, SEED)).all()


@pytest.mark.parametrize("how", [kind for kind in KINDS if not isinstance(kind, CountSketch)], ids=str)
@given(vector_D=VECTORS)
def test_what_has_arrived_arrives_again_as_it_is(how, vector_D):
    """Every vector that can arrive has one file, so compressing it makes that file."""
    body = wire.compress(vector_D, how, draws(), SEED)
    again = wire.compress(wire.expanded(body, how, len(vector_D), SEED), how, draws(1), SEED)
    if isinstance(how, Quantised):
        assert np.allclose(wire.expanded(again, how, len(vector_D), SEED), wire.expanded(body, how, len(vector_D), SEED),
                           rtol=1e-2, atol=1e-30)
    else:
        assert np.array_equal(wire.expanded(again, how, len(vector_D), SEED), wire.expanded(body, how, len(vector_D), SEED))


@each_kind
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_not_compressed(how, wrong):
    with pytest.raises(CodecError, match="not finite"):
        wire.compress(np.array([1, wrong, 2], np.float32), how, draws(), SEED)


# -- quantised ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_numbers_are_unbiased_and_their_variance_is_the_one_that_is_said(bits):
    how, vector_D = Quantised(bits=bits), vector(3000)
    many = np.stack([arrives(vector_D, how, seed) for seed in range(400)]).astype(np.float64)
    step = np.abs(vector_D).max() / quantised.largest(how)
    assert np.abs(many.mean(axis=0) - vector_D).max() < 5 * step / 2 / np.sqrt(400)
    body = wire.compress(vector_D, how, draws(), SEED)
    section = data(body, how, 3000)
    scale_K = quantised.scales(lambda start, count: bytes(section[start:start + count]), 3000)
    variance, longest = quantised.rounding(scale_K, how, 3000)
    assert np.square(many - vector_D).mean() == pytest.approx(variance, rel=0.02)
    assert longest == pytest.approx(step)


@given(VECTORS, st.sampled_from([8, 4]))
def test_no_number_moves_by_a_whole_step(vector_D, bits):
    how = Quantised(bits=bits)
    scale = np.abs(vector_D.astype(np.float64)).max()
    assert (np.abs(arrives(vector_D, how).astype(np.float64) - vector_D) <= scale / quantised.largest(how) * 1.000001).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_the_largest_number_of_a_block_and_zeros_arrive_as_they_are(bits):
    vector_D = vector(4096)
    vector_D[::5] = 0
    found_D, largest = arrives(vector_D, Quantised(bits=bits)), np.abs(vector_D.reshape(4, 1024)).argmax(axis=1)
    assert np.array_equal(found_D.reshape(4, 1024)[range(4), largest], vector_D.reshape(4, 1024)[range(4), largest])
    assert (found_D[::5] == 0).all()


QUANTISED_ATTACKS = {
    "a scale that is not a number": lambda s: s.__setitem__(slice(0, 4), np.float32(np.nan).tobytes()),
    "an infinite scale": lambda s: s.__setitem__(slice(0, 4), np.float32(np.inf).tobytes()),
    "a negative scale": lambda s: s.__setitem__(slice(0, 4), np.float32(-1).tobytes()),
    "a negative zero": lambda s: s.__setitem__(slice(0, len(s)), np.float32(-0.0).tobytes() + bytes(len(s) - 4)),
    "steps under a scale of zero": lambda s: s.__setitem__(slice(0, 4), bytes(4))}


@pytest.mark.parametrize("change", QUANTISED_ATTACKS.values(), ids=QUANTISED_ATTACKS)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_file_that_is_not_the_only_one_is_refused(change, bits):
    how = Quantised(bits=bits)
    section = data(wire.compress(vector(11), how, draws(), SEED), how, 11)
    change(section)
    with pytest.raises(CodecError, match="north"):
        read(section, how, 11)


def test_a_scale_that_no_number_reaches_is_refused():
    """It would be a second file for the same numbers, and would tell the gate of more rounding than there is."""
    eight, four = Quantised(bits=8), Quantised(bits=4)
    section = data(wire.compress(vector(11), eight, draws(), SEED), eight, 11)
    section[4:] = np.minimum(np.maximum(np.frombuffer(section[4:], np.int8), -126), 126).tobytes()
    with pytest.raises(CodecError, match="127 steps"):
        read(section, eight, 11)
    section = data(wire.compress(vector(11), four, draws(), SEED), four, 11)
    section[4:] = bytes([0x99] * 5 + [0x89])
    with pytest.raises(CodecError, match="7 steps"):
        read(section, four, 11)


def test_more_steps_than_there_are_and_a_left_over_half_byte_are_refused():
    eight, four = Quantised(bits=8), Quantised(bits=4)
    section = data(wire.compress(vector(11), eight, draws(), SEED), eight, 11)
    section[4] = 0x80
    with pytest.raises(CodecError, match="more than 127"):
        read(section, eight, 11)
    for place, byte, says in ((4, 0x70, "more than 7"), (-1, 0x18, "left over")):
        section = data(wire.compress(vector(11), four, draws(), SEED), four, 11)
        section[place] = byte
        with pytest.raises(CodecError, match=says):
            read(section, four, 11)


# -- top-k -------------------------------------------------------------------------------------------------------------


@given(VECTORS, st.floats(0.01, 0.5))
def test_the_largest_leave_and_the_rest_waits(vector_D, share):
    found_D = arrives(vector_D, TopK(share=share))
    count = sparse.kept(share, len(vector_D))
    assert np.count_nonzero(found_D) <= count
    sent = found_D != 0
    assert np.array_equal(found_D[sent], vector_D[sent])
    if sent.any() and not sent.all():
        assert np.abs(vector_D[~sent]).max() <= np.abs(vector_D[sent]).min()


@pytest.mark.parametrize(("how", "growth"), [(TopK(share=0.05), 1.2), (CountSketch(rows=5, size=0.4, share=0.005), 2.0)],
                         ids=["top_k", "count_sketch"])
def test_with_what_waits_everything_arrives_in_the_end(how, growth):
    """Stich et al. 2018: what arrived and what waits are together what was computed, after every round; and for numbers
    that decay, as the changes of a model do, what waits does not grow much.
    """
    waiting_D, arrived_D, computed_D, lengths = np.zeros(2000, np.float32), np.zeros(2000), np.zeros(2000), []
    generator = np.random.default_rng(3)
    for _ in range(60):
        delta_D = (generator.normal(size=2000) / np.arange(1, 2001)).astype(np.float32)
        vector_D = delta_D + waiting_D
        found_D = arrives(vector_D, how)
        waiting_D = vector_D - found_D
        arrived_D += found_D
        computed_D += delta_D
        lengths.append(float(np.linalg.norm(waiting_D)))
        assert np.abs(arrived_D + waiting_D - computed_D).max() < 1e-4
    assert max(lengths[30:]) < growth * max(lengths[:30])


def test_without_what_waits_small_numbers_never_arrive():
    """What the residual is for: the same small number every round, below a large one."""
    delta_D, how = np.array([1.0, 0.1, *[0.0] * 8], np.float32), TopK(share=0.1)
    assert sum(arrives(delta_D, how)[1] for _ in range(50)) == 0
    waiting_D, arrived = np.zeros(10, np.float32), 0.0
    for _ in range(50):
        found_D = arrives(delta_D + waiting_D, how)
        waiting_D = delta_D + waiting_D - found_D
        arrived += found_D[1]
    assert arrived == pytest.approx(5.0, abs=1.2)


@pytest.mark.parametrize(("places", "says"), [
    ((3, 3), "ascend"), ((4, 3), "ascend"), ((3, 11), "below 11"), ((0, 2 ** 32 - 1), "below 11")])
def test_places_that_do_not_ascend_or_do_not_exist_are_refused(places, says):
    how = TopK(share=0.15)
    section = np.array(places, "<u4").tobytes() + np.ones(2, "<f4").tobytes()
    assert len(section) == wire.form(how, 11).data_bytes
    with pytest.raises(CodecError, match=says):
        read(section, how, 11)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(wrong):
    section = np.array((3, 4), "<u4").tobytes() + np.array((1, wrong), "<f4").tobytes()
    with pytest.raises(CodecError, match="finite"):
        read(section, TopK(share=0.15), 11)
    how = CountSketch(rows=3, size=0.3, share=0.1)
    table = np.full(wire.form(how, 100).data_bytes // 4, wrong, "<f4").tobytes()
    with pytest.raises(CodecError, match="finite"):
        read(table, how, 100)


@pytest.mark.parametrize("at_once", [1, 3, 64])
@pytest.mark.parametrize("how", [TopK(share=0.4), TopK(share=0.01), Quantised(bits=8), Quantised(bits=4)], ids=str)
def test_what_is_read_in_small_blocks_is_the_same(monkeypatch, how, at_once):
    body = wire.compress(vector(5000), how, draws(), SEED)
    whole = wire.expanded(body, how, 5000, SEED)
    monkeypatch.setattr(sparse, "_AT_ONCE", at_once)
    monkeypatch.setattr(quantised, "_AT_ONCE", 1024 * at_once)
    assert np.array_equal(wire.expanded(body, how, 5000, SEED), whole)


def test_places_that_do_not_ascend_from_one_block_to_the_next_are_refused(monkeypatch):
    monkeypatch.setattr(sparse, "_AT_ONCE", 1)
    section = np.array((4, 3), "<u4").tobytes() + np.ones(2, "<f4").tobytes()
    with pytest.raises(CodecError, match="ascend"):
        read(section, TopK(share=0.15), 11)


# -- count sketch ------------------------------------------------------------------------------------------------------


def test_a_sketch_finds_the_few_large_numbers_and_what_they_are():
    vector_D = np.zeros(20_000, np.float32)
    places = np.random.default_rng(5).choice(20_000, 20, replace=False)
    vector_D[places] = np.linspace(5, 50, 20, dtype=np.float32)
    found_D = arrives(vector_D + 0.001 * vector(20_000), CountSketch(rows=7, size=0.5, share=0.001))
    assert set(np.flatnonzero(found_D)) == set(places)
    assert found_D[places] == pytest.approx(vector_D[places], abs=0.2)


def test_a_sketch_of_a_sum_is_the_sum_of_sketches():
    """What makes it a sketch; and two seeds have different places."""
    how, one_D, other_D = CountSketch(rows=3, size=0.2, share=0.1), vector(500, 1), vector(500, 2)
    tables = [sketch.sketched(v, how, SEED) for v in (one_D, other_D, one_D + other_D)]
    assert tables[0] + tables[1] == pytest.approx(tables[2], abs=1e-4)
    assert not np.array_equal(tables[0], sketch.sketched(one_D, how, SEED[::-1]))


@given(VECTORS, st.sampled_from([0.1, 0.5]), st.sampled_from([1, 3]))
def test_what_a_sketch_leaves_over_is_never_longer_than_the_vector(vector_D, size, rows):
    """So what waits at a site cannot explode, however badly a table is read."""
    left_D = vector_D.astype(np.float64) - arrives(vector_D, CountSketch(rows=rows, size=size, share=0.3))
    assert np.linalg.norm(left_D) <= np.linalg.norm(vector_D.astype(np.float64)) * 1.0001


def test_a_sketchs_places_are_spread_evenly_and_its_signs_balance():
    for row in range(3):
        columns, signs = sketch._places(SEED, row, 0, 100_000, 50)
        assert np.bincount(columns, minlength=50) == pytest.approx(2000, rel=0.12)
        assert abs(signs.sum()) < 5 * np.sqrt(100_000)
    assert np.mean(sketch._places(SEED, 0, 0, 10_000, 50)[0] == sketch._places(SEED, 1, 0, 10_000, 50)[0]) < 0.05


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "kind"), [
    ({"name": "quantised", "bits": 2}, Quantised), ({"name": "top_k", "share": 0.0}, TopK),
    ({"name": "top_k", "share": 0.6}, TopK), ({"name": "count_sketch", "size": 0.1}, CountSketch)])
def test_what_cannot_be_is_refused(value, kind):
    with pytest.raises(ContractError):
        parse(kind, value, "compression")


def test_more_numbers_than_places_can_name_are_refused():
    with pytest.raises(ContractError, match="32 bits"):
        wire.form(TopK(share=0.1), 2 ** 32 + 1)


def test_which_of_them_keep_nothing_back():
    assert [is_unbiased(how) for how in (None, *KINDS)] == [True, True, True, False, False, False]
