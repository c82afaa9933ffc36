"""The data sets that come with the package, as pandas DataFrames."""

from __future__ import annotations

from importlib.resources import as_file, files

import pandas as pd
import pyarrow.parquet as pq


def insteval() -> pd.DataFrame:
    """University lecture evaluations by students at ETH Zurich: 73,421 ratings. Source: lme4 (InstEval).

    s: student, 2,972 levels; d: lecturer, 1,128 levels; studage: the student's age in semesters, 4 levels; lectage: how
    many semesters ago the lecture took place, 6 levels; service: "1" for a lecture given to students of another
    department; dept: the lecturer's department, 14 levels; y: rating from 1 (poor) to 5 (very good), int32.
    """
    return _read("insteval")


def sleepstudy() -> pd.DataFrame:
    """Reaction times of 18 long-distance lorry drivers over ten days of restricted sleep, 180 rows.

    Reaction: mean reaction time in ms; Days: days of sleep deprivation, 0-9; Subject: 18 levels.
    Source: lme4 (sleepstudy), from Belenky et al. (2003), Journal of Sleep Research 12, 1-12.
    """
    return _read("sleepstudy")


def dyestuff() -> pd.DataFrame:
    """Yield of dyestuff from five preparations of each of six batches of an intermediate product, 30 rows.

    Batch: 6 levels; Yield: grams of standard colour. Source: lme4 (Dyestuff), from Davies and Goldsmith (1972),
    Statistical Methods in Research and Production, table 6.1.
    """
    return _read("dyestuff")


def penicillin() -> pd.DataFrame:
    """Diameters of growth inhibition of six penicillin samples on each of 24 plates, 144 rows, fully crossed.

    diameter: mm; plate: 24 levels; sample: 6 levels. Source: lme4 (Penicillin), from Davies and Goldsmith (1972).
    """
    return _read("penicillin")


def pastes() -> pd.DataFrame:
    """Strength of a chemical paste, two assays of each of three casks of ten deliveries, 60 rows, nested.

    strength; batch: 10 levels; cask: 3 levels within a batch; sample: batch:cask, 30 levels.
    Source: lme4 (Pastes), from Davies and Goldsmith (1972), table 6.5.
    """
    return _read("pastes")


def cake() -> pd.DataFrame:
    """Breaking angle of chocolate cakes of three recipes baked at six temperatures, 270 rows.

    replicate: 15 levels within a recipe; recipe: 3 levels; temperature: 6 levels; angle: degrees, int32; temp: degrees
    Fahrenheit as a number. Source: lme4 (cake), from Cook (1938), in Cochran and Cox (1957), Experimental Designs.
    """
    return _read("cake")


def _read(name: str) -> pd.DataFrame:
    with as_file(files("bigmm.datasets") / "data" / f"{name}.parquet") as path:
        # The lme4 order of levels is in the Arrow dictionaries, which become Categoricals.
        return pq.read_table(path, page_checksum_verification=True).to_pandas()
