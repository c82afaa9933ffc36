"""Types and orders as they are declared; columns that Arrow cannot read; keys of folders."""

from __future__ import annotations

import datetime

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bigmm.errors import DataError
from bigmm.source import open_source
from bigmm.source.parquet import ParquetSource

TEXT = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "22", "-3", "0"), pa.int64()),
        (("9223372036854775807",), pa.int64()),
        (("9223372036854775808",), TEXT),
        (("001", "1"), TEXT),
        (("1", "01", "2"), TEXT),
        (("-0", "0"), TEXT),
        (("1.0", "1"), TEXT),
        (("+1", "2"), TEXT),
        (("1e3", "1000"), TEXT),
        ((" 1", "1"), TEXT),
        (("1_0", "10"), TEXT),
        (("\u0663", "3"), TEXT),
        (("2020-01-01", "2020-01-02"), TEXT),
        (("true", "false"), TEXT),
    ],
)
def test_a_key_is_a_number_only_if_every_value_prints_back_to_itself(write, tmp_path, read_all, values, kind):
    for number, value in enumerate(values):
        write(f"lake/k={value}/a.parquet", {"x": [number]})
    source = open_source(tmp_path / "lake")
    assert source.schema.field("k").type == kind
    found = read_all(source, ["x", "k"])
    assert [str(found["k"][found["x"].index(i)]) for i in range(len(values))] == list(values)


def test_one_key_of_text_among_many_decides_for_the_whole_lake(write, tmp_path):
    for value in [*range(100, 120), "007"]:
        write(f"lake/k={value}/a.parquet", {"x": [1]})
    assert open_source(tmp_path / "lake").schema.field("k").type == TEXT


def partitioned(write, tmp_path):
    for value in ("00", "01", "__HIVE_DEFAULT_PARTITION__"):
        write(f"lake/zip={value}/a.parquet", {"y": [1.0, 2.0], "n": [1, 2]})
    return tmp_path / "lake"


def test_the_types_of_a_dataset_are_obeyed(write, tmp_path, read_all):
    """A dataset's own table is what a dataset means."""
    place = partitioned(write, tmp_path)
    schema = pa.schema([("zip", pa.string()), ("y", pa.float32()), ("n", pa.string()), ("absent", pa.int64())])
    flavour = ds.partitioning(pa.schema([("zip", pa.string())]), flavor="hive")
    dataset = ds.dataset(place, schema=schema, partitioning=flavour)
    source = open_source(dataset)
    assert isinstance(source, ParquetSource)
    assert [field.type for field in source.schema] == [TEXT, pa.float32(), TEXT, pa.int64()]
    names = ["zip", "y", "n", "absent"]
    assert read_all(source, names) == dataset.to_table().select(names).to_pydict()
    assert source.head(["absent", "zip"], 1).to_pydict() == {"absent": [None], "zip": ["00"]}


@pytest.mark.parametrize("kind", [pa.string(), pa.int16(), pa.float64()])
def test_a_declared_type_of_a_key(write, tmp_path, read_all, kind):
    for value in ("2020", "2021"):
        write(f"lake/year={value}/a.parquet", {"y": [1.0]})
    dataset = ds.dataset(tmp_path / "lake", partitioning=ds.partitioning(pa.schema([("year", kind)]), flavor="hive"))
    assert read_all(open_source(dataset), ["year"]) == dataset.to_table().select(["year"]).to_pydict()
    some = open_source(dataset, filter="year == '2021'" if kind == pa.string() else None)
    assert some.inventory.n_files == 2


def test_keys_of_other_partitionings_and_datasets_without_keys(write, tmp_path, read_all):
    write("lake/07/a=1/a.parquet", {"y": [1.0]})
    schema = pa.schema([("month", pa.string()), ("day", pa.string())])
    dataset = ds.dataset(tmp_path / "lake", partitioning=ds.partitioning(schema))
    assert read_all(open_source(dataset), ["month", "day"]) == {"month": ["07"], "day": ["a=1"]}
    assert open_source(ds.dataset(tmp_path / "lake")).schema.names == ["y"]


def test_timestamps_of_spark_beyond_the_year_2262(write, read_all):
    times = [datetime.datetime(9999, 12, 31), datetime.datetime(2021, 1, 1), datetime.datetime(1, 1, 1), None]
    column = pa.array(times, pa.timestamp("us"))
    path = write("t.parquet", {"t": column}, use_deprecated_int96_timestamps=True)
    assert read_all(open_source(path), ["t"]) == {"t": times}
    kept = open_source(path, filter="t > '2020-01-01'")
    assert read_all(kept, ["t"]) == {"t": times[:2]}
    mixed = write("u.parquet", {"t": column})
    assert read_all(open_source([path, mixed]), ["t"]) == {"t": times * 2}


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_in_delta_pages(write, tmp_path, read_all, encoding, kind):
    values = ["a", None, "bc", "a"] * 60
    options = {"use_dictionary": False, "column_encoding": {"k": encoding, "x": "PLAIN"}}
    write("lake/a.parquet", {"k": pa.array(values).cast(kind), "x": list(range(240))}, **options)
    write("lake/b.parquet", {"k": values, "x": list(range(240))})
    source = open_source(tmp_path / "lake")
    assert read_all(source, ["k", "x"]) == {"k": values * 2, "x": list(range(240)) * 2}
    assert source.head(["k"], 3).to_pydict() == {"k": values[:3]}
    assert read_all(source, ["x"])["x"] == list(range(240)) * 2


def test_a_column_that_arrow_cannot_read_matters_only_where_it_is_used(tmp_path, read_all):
    frame = pl.DataFrame({"x": [1.0, 2.0], "g": ["a", "b"], "big": [1, 2]}).with_columns(pl.col("big").cast(pl.Int128))
    frame.write_parquet(tmp_path / "a.parquet")
    for data in (frame, frame.lazy(), tmp_path / "a.parquet"):
        assert read_all(open_source(data, filter="x > 1"), ["g"]) == {"g": ["b"]}
    with pytest.raises(DataError, match="column 'big' of the polars DataFrame cannot be used"):
        open_source(frame).head(["big"], 1)


def test_duplicated_names_matter_only_where_they_are_used(write, tmp_path, read_all):
    columns = [pa.array([1, 2]), pa.array([3, 4]), pa.array([5.0, 6.0])]
    twice = pa.Table.from_arrays(columns, names=["d", "d", "x"])
    path = write("twice.parquet", twice)
    frame = twice.to_pandas()
    for data in (path, twice, frame):
        source = open_source(data)
        assert read_all(source, ["x"]) == {"x": [5.0, 6.0]}
        with pytest.raises(DataError, match="duplicated column name 'd' in .*; rename one of them"):
            source.head(["d"], 1)


def test_nested_and_extension_columns_beside(write, read_all):
    import uuid

    columns = {
        "x": [1.0, 2.0],
        "list": [[1], []],
        "struct": [{"a": 1}, None],
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "uuid": pa.array([uuid.uuid4().bytes] * 2, pa.uuid()),
        "json": pa.array(["{}", None], pa.json_()),
        "span": pa.array([1, 2], pa.duration("us")),
        "bytes": [b"\xff", None],
        "half": pa.array(np.array([1, 2], np.float16)),
    }
    path = write("odd.parquet", columns)
    for data in (path, pa.table(columns), ds.dataset(path)):
        assert read_all(open_source(data), ["x"]) == {"x": [1.0, 2.0]}
    assert read_all(open_source(path, filter="x > 1"), ["x"]) == {"x": [2.0]}


def test_odd_columns_of_dask_and_pandas_frames(read_all):
    frame = pd.DataFrame({"x": [1.0, 2.0], "odd": [1, "one"]})
    assert read_all(open_source(frame), ["x"]) == {"x": [1.0, 2.0]}
    assert read_all(open_source(dd.from_pandas(frame, npartitions=1)), ["x"]) == {"x": [1.0, 2.0]}


@pytest.fixture
def dosed():
    return pd.DataFrame(
        {
            "dose": pd.Categorical(["mid", "low", "high"], ["low", "mid", "high", "none"]),
            "res": pd.Categorical(["pass", "fail", "pass"], ["pass", "fail"], ordered=True),
            "text": ["b", "a", "c"],
            "k": pd.Categorical([3, 1, 3], [3, 1]),
        }
    )


ORDERS = {"dose": ("low", "mid", "high", "none"), "res": ("pass", "fail")}
NAMES = ["dose", "res", "text"]


def test_the_order_of_categories_is_that_of_the_frame_in_every_container(dosed, tmp_path):
    dosed.to_parquet(tmp_path / "a.parquet")
    dosed.to_parquet(tmp_path / "b.parquet")
    dosed.to_parquet(tmp_path / "delta.parquet", use_dictionary=["dose", "res"], row_group_size=1)
    containers = (
        dosed,
        tmp_path / "a.parquet",
        tmp_path / "delta.parquet",
        [tmp_path / "a.parquet", tmp_path / "b.parquet"],
        pq.read_table(tmp_path / "a.parquet"),
        pa.Table.from_pandas(dosed),
        ds.dataset(tmp_path / "a.parquet"),
        dd.from_pandas(dosed, npartitions=1),
    )
    for data in containers:
        assert open_source(data).orders(NAMES).levels == ORDERS


def test_fastparquet_like_files_keep_their_order_too(dosed, tmp_path):
    """pandas' note without Arrow's: other writers know nothing of Arrow's schema."""
    path = tmp_path / "a.parquet"
    dosed.to_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"ARROW:schema", b"other:schema"))
    assert pa.types.is_string(pq.ParquetFile(path).schema_arrow.field("dose").type)
    assert open_source(tmp_path / "a.parquet").orders(["dose", "res"]).levels == ORDERS


def test_polars_enums_keep_their_order_in_files(tmp_path):
    kind = pl.Enum(["v", "u", "w", "a;b", "\u00e9\u00e9"])
    frame = pl.DataFrame({"e": pl.Series(["u", "w"], dtype=kind), "c": pl.Series(["z", "y"], dtype=pl.Categorical)})
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=1)
    expected = {"e": ("v", "u", "w", "a;b", "\u00e9\u00e9")}
    assert open_source(frame).orders(["e", "c"]).levels == expected
    assert open_source(tmp_path / "a.parquet").orders(["e", "c"]).levels == expected


def test_an_ordered_dictionary_of_arrow_keeps_its_order_in_files(write):
    ordered = pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), ["lo", "hi"], ordered=True)
    table = pa.table({"o": ordered, "plain": pa.array(["z", "a", "z"]).dictionary_encode()})
    for data in (table, write("a.parquet", table)):
        assert open_source(data).orders(["o", "plain"]).levels == {"o": ("lo", "hi")}


def test_files_that_disagree_on_an_order(dosed, tmp_path):
    """Ordered categories need one order; for others there is text's."""
    dosed.to_parquet(tmp_path / "a.parquet")
    other = dosed.assign(
        res=dosed.res.cat.reorder_categories(["fail", "pass"]),
        dose=dosed.dose.cat.reorder_categories(["none", "mid", "low", "high"]),
    )
    other.to_parquet(tmp_path / "b.parquet")
    orders = open_source(tmp_path).orders(NAMES)
    assert orders.levels == {}
    assert list(orders.lost) == ["res"]
    assert "do not agree on the order of the categories of column 'res'" in orders.lost["res"]
    assert "Pass categories={'res': [...]}" in orders.lost["res"]


def test_categories_that_are_numbers_lose_their_order_in_files(dosed, tmp_path):
    dosed.to_parquet(tmp_path / "a.parquet")
    assert open_source(dosed).orders(["k"]).levels == {"k": (3, 1)}
    for data in (tmp_path / "a.parquet", pq.read_table(tmp_path / "a.parquet")):
        orders = open_source(data).orders(["k"])
        assert orders.levels == {}
        assert "column 'k'" in orders.lost["k"] and "Pass categories={'k': [...]}" in orders.lost["k"]


@pytest.fixture
def encrypted(tmp_path):
    """encrypted(plaintext_footer) -> a file of which column y is encrypted."""
    pe = pytest.importorskip("pyarrow.parquet.encryption")
    import base64

    class Keys(pe.KmsClient):
        def __init__(self, connection):
            pe.KmsClient.__init__(self)
            self.keys = connection.custom_kms_conf

        def wrap_key(self, key_bytes, master_key_identifier):
            return base64.b64encode(self.keys[master_key_identifier].encode() + key_bytes)

    def make(plaintext_footer):
        table = pa.table({"y": [1.0, 2.0], "x": [1.0, 2.0], "g": ["a", "b"]})
        connection = pe.KmsConnectionConfig(custom_kms_conf={"f": "0123456789012345", "c": "0123456789012346"})
        how = pe.EncryptionConfiguration(footer_key="f", column_keys={"c": ["y"]}, plaintext_footer=plaintext_footer)
        properties = pe.CryptoFactory(Keys).file_encryption_properties(connection, how)
        with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)
        return tmp_path / "a.parquet"

    return make


def test_an_encrypted_column_matters_only_where_it_is_used(encrypted, read_all):
    """pyarrow ends the process when the chunk of such a column is asked for its sizes."""
    source = open_source(encrypted(True))
    assert read_all(source, ["x", "g"]) == {"x": [1.0, 2.0], "g": ["a", "b"]}
    with pytest.raises(DataError, match=r"a\.parquet, row group 0 has an encrypted column, which bigmm does not read"):
        source.read(source.partitions[0], ["y"])
    assert source.inventory.checked == 0


def test_an_encrypted_footer_is_named(encrypted):
    with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet file: it is encrypted Parquet"):
        open_source(encrypted(False))
