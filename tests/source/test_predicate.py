"""filter= in its three forms, and what it refuses."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bigmm.errors import DataError, FormulaError, UsageError
from bigmm.source import open_source

ROWS = [{"x": float(i), "g": f"g{i % 7}", "n": i} for i in range(1000)]

CASES = [
    ("x > 990", lambda r: r["x"] > 990),
    ("n >= 5 and n < 8", lambda r: 5 <= r["n"] < 8),
    ("5 <= n < 8", lambda r: 5 <= r["n"] < 8),
    ("g == 'g3' and not n > 100", lambda r: r["g"] == "g3" and not r["n"] > 100),
    ("g in ('g1', \"g2\") and n < 20", lambda r: r["g"] in ("g1", "g2") and r["n"] < 20),
    ("g not in ['g1'] and (n == 1 or n == 2 or n == 8)", lambda r: r["n"] == 2),
    ("n != 0 and n < 3 | (n == 7)", None),
    ("(n == 3) | (n == 7) & (x > 5)", lambda r: r["n"] == 3 or r["n"] == 7),
    ("x * 2 + 1 > 1990 - n", lambda r: r["x"] * 2 + 1 > 1990 - r["n"]),
    ("n / 2 < 0.9", lambda r: r["n"] / 2 < 0.9),
    ("-x > -3", lambda r: -r["x"] > -3),
    ("n > -1", lambda r: True),
    ("  3 > n  ", lambda r: r["n"] < 3),
    ([("n", "<", 10), ("g", "==", "g1")], lambda r: r["n"] < 10 and r["g"] == "g1"),
    (
        [[("n", "<", 2)], [("g", "in", ["g1"]), ("n", "<", 10)]],
        lambda r: r["n"] < 2 or (r["g"] == "g1" and r["n"] < 10),
    ),
    ((pc.field("x") > 990) & (pc.field("g") != "g1"), lambda r: r["x"] > 990 and r["g"] != "g1"),
    (pc.field("g").isin(["g1"]), lambda r: r["g"] == "g1"),
]


@pytest.mark.parametrize(("given", "keeps"), [case for case in CASES if case[1]])
def test_rows_kept_in_files_and_in_memory(write, table, read_all, given, keeps):
    expected = [row["x"] for row in ROWS if keeps(row)]
    for data in (write("t.parquet", table), table, table.to_pandas()):
        source = open_source(data, filter=given, partition_bytes=3000)
        assert read_all(source, ["x"]) == {"x": expected}, data


def test_columns_of_the_filter_are_read_but_not_returned(write, table):
    source = open_source(write("t.parquet", table), filter="n < 3 and g != 'zz'")
    read = source.read(source.partitions[0], ["x"])
    assert read.column_names == ["x"]
    assert read.num_rows == 3
    assert set(source.predicate.columns) == {"n", "g"}


def test_nulls_do_not_pass(write, table, read_all):
    path = write("t.parquet", table)
    assert len(read_all(open_source(path, filter="w == 1"), ["w"])["w"]) == 800
    assert len(read_all(open_source(path, filter="w is None"), ["w"])["w"]) == 100
    assert len(read_all(open_source(path, filter="w != None"), ["w"])["w"]) == 900


def test_statistics_prune_row_groups_and_hive_keys(lake, read_all):
    source = open_source(lake, filter="x >= 650 and year == 2021")
    assert {part.fingerprint.row_groups for part in source.partitions} == {(2, 3)}
    assert all("year=2021" in part.where for part in source.partitions)
    assert len(read_all(source, ["x"])["x"]) == 700


def test_nan_is_not_pruned_away(write, read_all):
    # pyarrow's own dataset loses this row: statistics of the row group say min = max = 1.
    path = write("nan.parquet", {"x": [1.0, float("nan")], "y": [1, 2]})
    for given in ("x != 1", "not x == 1", [("x", "!=", 1)], ~(pc.field("x") <= 1)):
        assert read_all(open_source(path, filter=given), ["y"]) == {"y": [2]}


def test_dates_are_written_as_text(write, read_all):
    days = [datetime.date(2020, 1, 1), datetime.date(2021, 6, 1)]
    path = write("d.parquet", {"day": days, "at": pa.array(days).cast(pa.timestamp("us")), "y": [1, 2]})
    for given in ("day > '2020-12-31'", "at > '2020-12-31'", "day in ('2021-06-01',)", "'2021-01-01' < day"):
        assert read_all(open_source(path, filter=given), ["y"]) == {"y": [2]}
    with pytest.raises(FormulaError, match=r"'tomorrow' is not a date32"):
        open_source(path, filter="day > 'tomorrow'")


SLIPS = [
    ("x >", "cannot read the filter: invalid syntax", None),
    ("z > 3", "no column 'z' in the data", 0),
    ("x > 3 and G == 'a'", "no column 'G' in the data; did you mean 'g'?", 10),
    ("abs(x) > 3", "call is not allowed", 0),
    ("x.real > 3", "attribute is not allowed", 0),
    ("x[0] > 3", "subscript is not allowed", 0),
    ("__import__('os').system('true') == 0", "call is not allowed", 0),
    ("x ** 2 > 3", "operator Pow is not allowed", 0),
    ("g in x", "'in' needs a list of constants", 5),
    ("g in (x, 'a')", "'in' needs constants, not columns", 5),
    ("x is 3", "'is' is allowed with None only", 0),
    ("1 < 2", "a comparison needs a column on one side", 0),
    ("3", "a comparison of a column is needed here", 0),
    ("n > 3 and 'yes'", "a comparison of a column is needed here", 10),
    ("n > 'a' - 1", "unsupported operand", 4),
]


@pytest.mark.parametrize(("text", "message", "position"), SLIPS, ids=[slip[0] for slip in SLIPS])
def test_slips_point_at_the_spot(table, text, message, position):
    with pytest.raises(FormulaError) as caught:
        open_source(table, filter=text)
    assert message in str(caught.value)
    assert text in str(caught.value)
    if position is not None:
        assert caught.value.position == position
    assert str(caught.value).splitlines()[-1].strip() == "^"


def test_filters_that_do_not_fit_the_data(table):
    with pytest.raises(UsageError, match=r"names a column that is not in the data: 'zz'"):
        open_source(table, filter=pc.field("zz") > 3)
    with pytest.raises(UsageError, match=r"names a column that is not in the data: 'N'; did you mean 'n'\?"):
        open_source(table, filter=[("N", ">", 3)])
    with pytest.raises(UsageError, match="does not fit the data: it is double, not true or false"):
        open_source(table, filter=pc.field("x") + 1)
    with pytest.raises(UsageError, match=r"does not fit the data: .*"):
        open_source(table, filter="g > 3")
    with pytest.raises(UsageError, match=r"a comparison needs a column on one side"):
        open_source(table, filter="1 + 1 > 1")
    with pytest.raises(UsageError, match=r"cannot read filter .*expected tuples like \('x', '>', 3\)"):
        open_source(table, filter=[("x", "~~", 3)])
    with pytest.raises(UsageError, match="filter must be a text like .*, not dict"):
        open_source(table, filter={"x": 3})


def test_a_filter_that_keeps_nothing(write, table):
    for data in (write("t.parquet", table), table):
        with pytest.raises(DataError, match="no row of .* passes the filter 'n > 5000'"):
            open_source(data, filter="n > 5000").head(["x"], 5)


def test_a_filter_on_a_drifting_column_is_refused_at_once(write, tmp_path):
    write("a.parquet", {"x": [1.0], "y": [1.0]})
    write("b.parquet", {"y": [1.0]})
    with pytest.raises(DataError, match=r"column 'x' is missing in .*b\.parquet"):
        open_source(tmp_path, filter="x > 0")


ODD = {
    "i8": pa.array([1, 2, 50, 100, None], pa.int8()),
    "i64": pa.array([2**53, 2**53 + 1, -5, 20_000_001, None]),
    "u64": pa.array([0, 2**63, 2**64 - 1, 7, None], pa.uint64()),
    "f32": pa.array([0.1, 0.5, -0.0, 1e30, None], pa.float32()),
    "f16": pa.array(np.array([0.5, 1, 2, 3, 4], np.float16)),
    "f64": pa.array([0.1, 0.5, -0.0, 1e300, None]),
    "dec": pa.array([Decimal("0.10"), Decimal("0.50"), Decimal("-3.00"), Decimal("99.99"), None], pa.decimal128(9, 2)),
    "b": pa.array([True, False, True, False, None]),
    "s": pa.array(["u", "v", "w", "u", None]),
    "by": pa.array([b"u", b"v", b"w", b"u", None]),
    "d": pa.array([datetime.date(2020, 1, k + 1) for k in range(4)] + [None]),
    "ts": pa.array([datetime.datetime(2020, 1, k + 1, 12) for k in range(4)] + [None], pa.timestamp("us")),
    "tz": pa.array(
        [datetime.datetime(2020, 1, k + 1, 23, 30) for k in range(4)] + [None], pa.timestamp("ms", "Europe/Berlin")
    ),
    "tm": pa.array([datetime.time(6 * k) for k in range(4)] + [None]),
    "nothing": pa.nulls(5),
    "my var": pa.array(range(5)),
    "x.y": pa.array(range(5)),
    "\u00b5": pa.array(range(5)),  # the micro sign, which Python's own parser would turn into the Greek letter
    "class": pa.array(range(5)),
    "row": pa.array(range(5)),
}

#: Filter -> rows it keeps, by exact arithmetic; row 4 is missing in most columns.
EXACT = [
    ("i8 + 100 > 149", [2, 3]),
    ("i8 * 2 > 150", [3]),
    ("i8 > 300", []),
    ("i8 < 300", [0, 1, 2, 3]),
    ("i8 != 1.5", [0, 1, 2, 3]),
    ("not i8 == 1.5", [0, 1, 2, 3]),
    ("1.5 < i8 <= 50.0", [1, 2]),
    ("i8 / 2 > 0.5", [1, 2, 3]),
    ("i8 / 0 > 1", [0, 1, 2, 3]),
    ("i64 > 1e6", [0, 1, 3]),
    ("i64 > 9007199254740992", [1]),
    ("i64 == 9007199254740993", [1]),
    ("i64 * 1.5 > 30000001.4", [0, 1, 3]),
    ("i64 * 1.5 > 30000001.5", [0, 1]),
    ("i64 + 0.5 > 20000001.4", [0, 1, 3]),
    ("u64 > 9223372036854775807", [1, 2]),
    ("u64 == 18446744073709551615", [2]),
    ("u64 > -1", [0, 1, 2, 3]),
    ("u64 - 9223372036854775808 >= 0", [1, 2]),
    ("u64 > i64", [1, 2]),
    ("f32 > 0.1", [0, 1, 3]),
    ("f32 == 0.5", [1]),
    ("f32 in (0, 0.5)", [1, 2]),
    ("f16 >= 2", [2, 3, 4]),
    ("f64 == 0.1", [0]),
    ("f64 in (0.1, 0)", [0, 2]),
    ("f64 < 18446744073709551615", [0, 1, 2]),
    ("dec == 0.1", [0]),
    ("dec >= 0.101", [1, 3]),
    ("dec * 2 == 1", [1]),
    ("dec < i8", [0, 1, 2, 3]),
    ("b", [0, 2]),
    ("not b", [1, 3]),
    ("b == 1 and i8 < 9", [0]),
    ("(i8 > 1) & b", [2]),
    ("by in ('u', 'w')", [0, 2, 3]),
    ("d >= '2020-01-03'", [2, 3]),
    ("d > '2020-01-02 12:00'", [2, 3]),
    ("d == '2020-01-02 12:00'", []),
    ("ts > d", [0, 1, 2, 3]),
    ("ts < '2020-01-02T12:00:00.000001'", [0, 1]),
    ("tz >= '2020-01-03'", [1, 2, 3]),  # 23:30 in UTC is half past midnight of the next day in Berlin
    ("tz >= '2020-01-03T00:00Z'", [2, 3]),
    ("tm >= '12:00'", [2, 3]),
    ("nothing == 3", []),
    ("nothing is None", [0, 1, 2, 3, 4]),
    ("s != 'u'", [1, 2]),
    ("s not in ('u',)", [1, 2]),
    ("not s in ('u',)", [1, 2]),
    ("not s == 'u'", [1, 2]),
    ("s in ('u', None)", [0, 3]),
    ("s not in ('u', None)", [1, 2]),
    ("s is null", [4]),
    ("s is not None", [0, 1, 2, 3]),
    ("`my var` > 3", [4]),
    ("x.y > 3", [4]),
    ("\u00b5 > 3", [4]),
    ("class > 3", [4]),
    ([("s", "not in", ["u"])], [1, 2]),
    ([("i64", ">", 1e6)], [0, 1, 3]),
    ([("i64", "in", np.array([2**53 + 1]))], [1]),
    ([("d", ">", datetime.date(2020, 1, 3))], [3]),
    ([("ts", ">", np.datetime64("2020-01-03"))], [2, 3]),
    ([("dec", "<", Decimal("0.2"))], [0, 2]),
    ([("s", "=", None)], [4]),
]


@pytest.mark.parametrize(("given", "rows"), EXACT, ids=[str(given) for given, _ in EXACT])
def test_values_as_written_and_one_rule_for_missing_ones(write, read_all, given, rows):
    table = pa.table(ODD)
    # each row is a row group of its own, so that statistics decide as much as they can
    for data in (write("odd.parquet", table, row_group_size=1), table):
        try:
            kept = read_all(open_source(data, filter=given), ["row"])["row"]
        except DataError as error:
            assert "passes the filter" in str(error)
            kept = []
        assert kept == rows


UNLIKE = [
    ("s > 3", "column 's' holds text and is compared with the number 3; write it in quotes", 4),
    (
        "i8 == '3'",
        "column 'i8' holds int8 numbers and is compared with the text '3'; write the number without quotes",
        6,
    ),
    ("s == i8", "column 's' holds text and is compared with column 'i8', which holds int8 numbers", 0),
    ("d > 18262", "column 'd' holds date32[day] and is compared with the number 18262", 4),
    ("i8 + s > 3", "column 's' holds text and cannot be computed with", 5),
    ("i8 and b", "column 'i8' holds int8 numbers, not true or false", 0),
    ("i8 > 1 & i8 < 9", "'&' binds more tightly than a comparison; write 'and' instead", 7),
    ("i8 == 1 | s == 'u'", "'|' binds more tightly than a comparison; write 'or' instead", 8),
    ("i8 = 3", "write == instead of =", 3),
    ("i8 <> 3", "write != instead of <>", 3),
    ("i8 > 3 && b", "write and instead of &&", 7),
    ("i8 < None", "a missing value can be found by 'is None'", 5),
    ("tm > 'noon'", "'noon' is not a time64[us] like 12:30:00", 5),
    ("i8 > 1/0", "division by zero", 5),
    ("(i8 > 3", "'(' is never closed", 0),
    ("s == 'u", "this text never ends", 5),
    ("i8 > 3)", "invalid syntax at ')'", 6),
    ("f64 > 99999999999999999999", "this integer has more than 64 bits", 6),
    ("f64 > 9999999999 * 9999999999", "this integer has more than 64 bits", 6),
    ("s == 'a' * 3000000000", "the text 'a' cannot be computed with", 5),
]


@pytest.mark.parametrize(("text", "message", "position"), UNLIKE, ids=[slip[0] for slip in UNLIKE])
def test_types_that_do_not_go_together_are_named(text, message, position):
    with pytest.raises(FormulaError) as caught:
        open_source(pa.table(ODD), filter=text)
    assert message in str(caught.value)
    assert caught.value.position == position


BOMBS = {
    "not": ("not " * 1500 + "i8 > 0", "more than 50 levels"),
    "brackets": ("(" * 100_000 + "i8 > 0" + ")" * 100_000, "more than 50 levels"),
    "lists": ("i8 in " + "[" * 100_000, "more than 50 levels"),
    "signs": ("-" * 100_000 + "i8 > 0", "more than 50 levels"),
    "sum": ("i8" + " + i8" * 1500 + " > 0", "more than 50 operators"),
    "and": (" and ".join(["i8 > 0"] * 100_000), "more than 1000 comparisons"),
    "chain": ("i8 < " * 100_000 + "3", "more than 1000 comparisons"),
    "digits": ("i8 > " + "9" * 10_000, "more than 64 bits"),
    "power": ("i8 > 10**10**10", "operator Pow is not allowed"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_and_shown_in_part(name):
    text, message = BOMBS[name]
    with pytest.raises(FormulaError, match=message) as caught:
        open_source(pa.table(ODD), filter=text)
    assert len(str(caught.value)) < 1000


def test_a_long_list_and_a_thousand_comparisons_are_no_bombs(read_all):
    table = pa.table(ODD)
    for given in (
        f"row in ({', '.join(map(str, range(2, 20_000)))})",
        " and ".join(f"row != {-k}" for k in range(1000)),
    ):
        kept = read_all(open_source(table, filter=given), ["row"])["row"]
        assert kept == ([2, 3, 4] if "in" in given else [1, 2, 3, 4])


def test_integer_overflow_names_the_columns():
    source = open_source(pa.table(ODD), filter="i64 * i64 > 0")
    with pytest.raises(DataError, match=r"more than 64 bits \(columns 'i64'\); write 1\.0 \* the column"):
        source.head(["row"], 5)


def test_an_expression_of_arrow_is_taken_as_it_is(read_all):
    # Arrow's own rule: a null is not in the list, so it passes the negation
    given = ~pc.field("s").isin(["u"])
    assert read_all(open_source(pa.table(ODD), filter=given), ["row"]) == {"row": [1, 2, 4]}


def test_values_that_are_not_trusted_to_statistics(write, read_all):
    # decimals, booleans and negations are never decided by the statistics of a row group
    path = write("odd.parquet", pa.table(ODD), row_group_size=1)
    for given, rows in (
        ("dec == 0.1", 5),
        ("not d > '2020-01-02'", 5),
        ("d > '2020-01-02'", 2),
        ("d > '2020-01-02' or dec > 1", 5),
    ):
        assert sum(part.rows for part in open_source(path, filter=given).partitions) == rows
