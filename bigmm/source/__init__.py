"""Where rows are: Parquet lakes, tables and frames as partitions that read named columns."""

from bigmm.source.opener import open_source
from bigmm.source.partition import Fingerprint, Inventory, Partition, Source

__all__ = ["Fingerprint", "Inventory", "Partition", "Source", "open_source"]
