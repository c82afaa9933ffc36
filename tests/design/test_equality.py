"""Equal values are one level, whatever types they come in: learned, looked up, declared, saved and shown."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from bigmm.design.levels.equality import canonical, label_strings
from bigmm.design.levels.numbering import Combinations, Levels, declared_values, ordered
from bigmm.design.spec import DesignSpec
from bigmm.errors import DataError
from tests.design.frames import learned

N = 8
DAYS = [dt.date(2020, 1, 1) + dt.timedelta(i) for i in range(N)]
NOONS = [dt.datetime(1969, 12, 31, 12) + dt.timedelta(i) for i in range(N)]
MIDNIGHTS = [dt.datetime(2020, 1, 1) + dt.timedelta(i) for i in range(N)]
IDS = [uuid.UUID(int=i + 7) for i in range(N)]
TENTHS = [i / 10 for i in range(N)]

#: In each family, every column holds the same N levels in the same order, whatever its type.
FAMILIES = {
    "whole numbers": [
        pa.array(range(N), pa.int8()),
        pa.array(range(N), pa.uint8()),
        pa.array(range(N), pa.uint64()),
        pa.array(range(N), pa.int64()),
        pa.array([-0.0, *range(1, N)], pa.float64()),
        pa.array([-0.0, *range(1, N)], pa.float32()),
        pa.array(np.arange(N, dtype=np.float16)),
        pa.array([Decimal(i) for i in range(N)], pa.decimal128(20, 0)),
        pa.array([Decimal(i) for i in range(N)], pa.decimal128(20, 3)),
        pa.array([Decimal(i) for i in range(N)], pa.decimal32(9, 1)),
        pa.array([Decimal(i) for i in range(N)], pa.decimal256(60, 2)),
        pa.array([str(i) for i in range(N)]),
        pa.array([str(i).encode() for i in range(N)]),
        pa.array([str(i).encode() for i in range(N)], pa.binary(1)),
        pa.array(range(N)).dictionary_encode(),
        pa.array([str(i) for i in range(N)]).dictionary_encode(),
    ],
    "tenths": [
        pa.array(TENTHS),
        pa.array(TENTHS, pa.float32()),
        pa.array(np.array(TENTHS, np.float16)),
        pa.array([Decimal(i) / 10 for i in range(N)], pa.decimal128(9, 1)),
        pa.array([Decimal(i) / 10 for i in range(N)], pa.decimal256(50, 4)),
        pa.array(["0", *(str(tenth) for tenth in TENTHS[1:])]),
    ],
    "days": [
        pa.array(DAYS),
        pa.array(DAYS, pa.date64()),
        *(pa.array(MIDNIGHTS, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
        pa.array(MIDNIGHTS, pa.timestamp("us", "UTC")),
        pa.array(MIDNIGHTS, pa.timestamp("ns", "Europe/Berlin")),
        pa.array([str(day) for day in DAYS]),
    ],
    "noons around 1970": [
        *(pa.array(NOONS, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
        pa.array(NOONS, pa.timestamp("s", "America/Lima")),
    ],
    "noons and their labels": [pa.array(NOONS, pa.timestamp("ns")), pa.array([str(noon) for noon in NOONS])],
    "times of day": [
        pa.array([dt.time(i, 30) for i in range(N)], pa.time32("s")),
        pa.array([dt.time(i, 30) for i in range(N)], pa.time64("ns")),
        pa.array([f"0{i}:30:00" for i in range(N)]),
    ],
    "durations": [
        pa.array([dt.timedelta(hours=i) for i in range(N)], pa.duration("s")),
        pa.array([dt.timedelta(hours=i) for i in range(N)], pa.duration("ns")),
        pa.array([f"0{i}:00:00" for i in range(N)]),
    ],
    "uuids": [pa.array([own.bytes for own in IDS], pa.uuid()), pa.array([str(own) for own in IDS])],
    "large unsigned": [
        pa.array([2**64 - N + i for i in range(N)], pa.uint64()),
        pa.array([Decimal(2**64 - N + i) for i in range(N)], pa.decimal128(20, 0)),
        pa.array([str(2**64 - N + i) for i in range(N)]),
    ],
    "bytes that are no text": [
        pa.array([bytes([200 + i]) for i in range(N)]),
        pa.array([bytes([200 + i]) for i in range(N)], pa.binary(1)),
        pa.array(["c8", "c9", "ca", "cb", "cc", "cd", "ce", "cf"]),
    ],
}


def levels_of(values: pa.Array) -> Levels:
    data = pa.table({"y": np.arange(2.0 * N), "g": pa.concat_arrays([values, values])})
    return learned("y ~ 1 + (1 | g)", data, partition_bytes=40).levels["g"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_level_is_found_again_in_every_type(family):
    for learned_from in FAMILIES[family]:
        levels = levels_of(learned_from)
        assert len(levels) == N, learned_from.type
        for asked in FAMILIES[family]:
            numbers = levels.numbers(pa.chunked_array([asked, asked.slice(3)]))
            assert numbers.tolist() == [*range(N), *range(3, N)], (learned_from.type, asked.type)


def test_bytes_that_are_no_text_are_shown_in_hexadecimal():
    levels = levels_of(pa.array([bytes([200 + i]) for i in range(N)]))
    assert levels.labels.tolist() == ["c8", "c9", "ca", "cb", "cc", "cd", "ce", "cf"]
    assert levels.numbers(pa.chunked_array([pa.array(["c9", "zz"])])).tolist() == [1, -1]
    # valid UTF-8, but unreadable: the bytes of small numbers
    assert levels_of(pa.array([bytes([0, i]) for i in range(N)])).labels[1] == "0001"


def test_what_is_another_number_is_no_level():
    integers = Levels("g", pa.array([1, 2**53, 2**53 + 1]))
    asked = pa.chunked_array([pa.array([1.5, 1.0, float("nan"), 2.0**53, 1e300, float("inf")])])
    assert integers.numbers(asked).tolist() == [-1, 0, -1, 1, -1, -1]
    floats = Levels("g", pa.array([1.0, 2.0**53]))
    assert floats.numbers(pa.chunked_array([pa.array([2**53 + 1, 2**53, 1])])).tolist() == [-1, 1, 0]
    days = Levels("g", pa.array(DAYS))
    later = pa.array([dt.datetime(2020, 1, 1, 0, 0, 1), dt.datetime(2020, 1, 2)], pa.timestamp("us"))
    assert days.numbers(pa.chunked_array([later])).tolist() == [-1, 1]
    assert Levels("g", pa.array([True, False])).numbers(pa.chunked_array([pa.array([0, 1, 2])])).tolist() == [1, 0, -1]


def test_single_precision_is_the_number_and_the_decimal_it_prints():
    widened = pa.array(np.array(TENTHS, np.float32).astype(np.float64))
    single = levels_of(pa.array(TENTHS, pa.float32()))
    assert single.labels.tolist() == TENTHS
    assert single.numbers(pa.chunked_array([widened])).tolist() == list(range(N))
    assert levels_of(widened).numbers(pa.chunked_array([pa.array(TENTHS, pa.float32())])).tolist() == list(range(N))
    # two numbers of double precision are never one level, even where single precision would print them alike
    double = Levels("g", pa.array([2097152.2, 2097152.25]))
    assert double.numbers(pa.chunked_array([pa.array([2097152.25, 2097152.2])])).tolist() == [1, 0]


def test_dictionaries_with_null_nan_and_repeated_entries():
    entries = pa.array([1.0, 2.0, -0.0, 0.0, 1.0, float("nan"), None, 5.0])
    column = pa.DictionaryArray.from_arrays(pa.array(list(range(8)) * 2, pa.int8()), entries)
    spec = learned("y ~ 1 + (1 | g)", pa.table({"y": np.arange(16.0), "g": column}))
    assert spec.levels["g"].labels.tolist() == [0.0, 1.0, 2.0, 5.0]
    text = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3] * 4), pa.array(["a", "b", None, "a"]))
    data = pa.table({"y": np.arange(16.0), "f": text, "g": ["p", "q", "r", "s"] * 4})
    chunk = learned("y ~ f + (1 | g)", data).encode(data, "here")
    assert chunk.columns.tolist() == [[0.0, 1.0, 0.0, 0.0] * 4]  # a null entry is told apart when rows are read
    assert learned("y ~ f + (1 | g)", data).levels["f"].labels.tolist() == ["a", "b"]


def test_negative_zero_in_factors_and_interactions():
    data = pa.table({"y": np.arange(12.0), "z": [0.0, -0.0, 1.0] * 4, "h": ["a", "b", "a", "b"] * 3})
    spec = learned("y ~ C(z) + (1 | h:z)", data)
    assert spec.layout.fixed_names == ("Intercept", "C(z)[T.1.0]")
    assert spec.layout.groupings[0].labels.tolist() == ["a:0", "a:1", "b:0", "b:1"]


def test_joined_labels_tell_combinations_apart():
    members = [Levels("a", pa.array(["a", "a:b", 'q"'])), Levels("b", pa.array(["b:c", "c"]))]
    ambiguous = Combinations(members, np.array([[0, 0], [1, 1], [2, 1]], np.int32))
    assert ambiguous.labels.tolist() == ['a:"b:c"', '"a:b":c', '"q""":c']
    clear = Combinations(members, np.array([[0, 0], [1, 0]], np.int32))
    assert clear.labels.tolist() == ["a:b:c", "a:b:b:c"]


def test_labels_do_not_depend_on_the_unit_and_never_coincide():
    for unit in ("ms", "us", "ns"):
        moments = pa.array([dt.datetime(2020, 1, 1, 12), dt.datetime(2020, 1, 1, 12, 0, 0, 500000)], pa.timestamp(unit))
        assert label_strings(moments).to_pylist() == ["2020-01-01 12:00:00", "2020-01-01 12:00:00.5"]
    zoned = pa.array([0], pa.timestamp("us", "Europe/Berlin"))
    assert label_strings(zoned).to_pylist() == ["1970-01-01 01:00:00+0100"]
    assert label_strings(pa.array([0], pa.timestamp("us", "Nowhere/Atall"))).to_pylist() == ["1970-01-01 00:00:00Z"]
    assert label_strings(pa.array([Decimal("1E-9")], pa.decimal128(20, 9))).to_pylist() == ["0.000000001"]
    span = pa.array([-dt.timedelta(hours=26, seconds=1, milliseconds=500)], pa.duration("ms"))
    assert label_strings(span).to_pylist() == ["-26:00:01.5"]
    assert len(set(levels_of(pa.array(["a", "a\0", "b", "c", "d", "e", "f", "g"])).labels.tolist())) == N
    # Arrow's date64 counts milliseconds; a time of day in it is no other day
    assert canonical(pa.array([-1, 86_400_001], pa.int64()).view(pa.date64())).to_pylist() == [
        dt.date(1969, 12, 31),
        dt.date(1970, 1, 2),
    ]


DECLARED = [
    (pa.uint64(), [2**64 - 1, 3, None], [2**64 - 1, 3]),
    (pa.float32(), [0.1, -0.0], [np.float32(0.1), 0.0]),
    (pa.decimal128(9, 2), [0.2, 1, "0.10"], None),
    (pa.decimal128(9, 2), [Decimal("1.5")], [Decimal("1.50")]),
    (pa.date32(), ["2020-01-02"], [dt.date(2020, 1, 2)]),
    (pa.date32(), [dt.datetime(2020, 1, 2)], [dt.date(2020, 1, 2)]),
    (pa.timestamp("ms"), [dt.date(2020, 1, 2)], [dt.datetime(2020, 1, 2)]),
    (pa.large_binary(), ["a"], [b"a"]),
    (pa.int64(), [1.0, 2.5], None),
    (pa.int64(), [1.0, 2.0], [1, 2]),
]


@pytest.mark.parametrize(("kind", "given", "expected"), DECLARED)
def test_declared_categories_are_levels_of_the_column(kind, given, expected):
    if expected is None:
        with pytest.raises(DataError, match="the categories of column 'g' .* do not match its type"):
            declared_values("g", given, kind)
    else:
        array = declared_values("g", given, kind)
        assert array.type == kind
        assert array.to_pylist() == expected
    with pytest.raises(DataError, match="repeat a level"):
        declared_values("g", [0.0, -0.0], pa.float64())


def test_declared_small_integers_of_a_wide_range():
    column = pa.array([-100, 100, 45, -100], pa.int8())
    data = pa.table({"y": np.arange(8.0), "g": pa.concat_arrays([column, column])})
    spec = learned("y ~ 1 + (1 | g)", data, categories={"g": [100, -100, 45]})
    assert spec.layout.groupings[0].labels.tolist() == [100, -100, 45]


def test_levels_of_every_type_are_saved():
    for family, columns in FAMILIES.items():
        data = pa.table({"y": np.arange(float(N)), "g": columns[0]})
        spec = learned("y ~ 1 + (1 | g)", data)
        again = DesignSpec.from_dict(*spec.to_dict())
        assert again.levels["g"].values.equals(spec.levels["g"].values), family
        assert again.encode_new(data).refs[0].tolist() == list(range(N))


def test_order_is_by_number_and_by_time():
    assert ordered("g", pa.array([2**63 + 5, 7, 2**64 - 1], pa.uint64()), None).labels.tolist() == [
        7,
        2**63 + 5,
        2**64 - 1,
    ]
    assert ordered("g", pa.array([Decimal("10.5"), Decimal("9.5")]), None).labels.tolist() == ["9.5", "10.5"]
    spans = pa.array([dt.timedelta(hours=100), dt.timedelta(hours=20)], pa.duration("s"))
    assert ordered("g", spans, None).labels.tolist() == ["20:00:00", "100:00:00"]
