"""A lake of the shape of MovieLens 25M: 25,000,095 ratings by 162,541 users of 59,047 movies (Harper and Konstan 2015).

The real file may not be redistributed; this generator keeps its published degree facts (at least 20 ratings per
user, mean 154; movie popularity heavy-tailed, half of the movies with fewer than ten ratings) and latent clusters of
taste, so that the graph of users and movies is no random expander. Ratings are simulated from the model that is fitted.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS, MOVIES, RATINGS, CLUSTERS = 162_541, 59_047, 25_000_095, 20
MONTHS, GENRES = 300, 97
SD_USER, SD_MOVIE, SD_RESIDUAL = 0.43, 0.49, 0.86
WITHIN = 0.7
"""Share of a user's ratings that go to movies of the user's own cluster."""


def pairs(rows: int, users: int, movies: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(user, movie) of about `rows` distinct pairs, in order of user."""
    mean = rows / users
    degree = 20 + rng.lognormal(np.log(max(mean - 20, 1)) - 0.72, 1.2, users)
    degree = np.maximum(1, degree * (1.75 * rows / degree.sum())).astype(np.int64)  # repeated draws fall out below
    popularity = rng.permutation((np.arange(movies) + 60.0) ** -1.25)
    cluster = rng.integers(0, CLUSTERS, movies)
    taste = rng.integers(0, CLUSTERS, users)
    user = np.repeat(np.arange(users, dtype=np.int64), degree)
    movie = np.searchsorted(np.cumsum(popularity) / popularity.sum(), rng.random(len(user))).astype(np.int64)
    inside = rng.random(len(user)) < WITHIN
    for c in range(CLUSTERS):
        chosen = np.flatnonzero(inside & (taste[user] == c))
        own = np.flatnonzero(cluster == c)
        weights = np.cumsum(popularity[own])
        movie[chosen] = own[np.searchsorted(weights / weights[-1], rng.random(len(chosen)))]
    key = np.unique(user * movies + np.minimum(movie, movies - 1))
    key = np.sort(rng.permutation(key)[: rows - movies])
    everyone = np.setdiff1d(np.arange(movies), key % movies)  # every movie is rated at least once
    key = np.unique(np.concatenate([key, rng.integers(0, users, len(everyone)) * movies + everyone]))
    return key // movies, key % movies


def write(directory: Path, rows: int = RATINGS, seed: int = 0, files: int = 8) -> int:
    """Write the lake; returns the number of rows.

    Columns: user, movie, month (300 levels, crossed with both), genre (int32; movies are nested in it), x, and three
    responses: rating (intercepts of user, movie, month and genre), sloped (the same and a slope of x per user), liked
    (0 or 1, logit link, intercepts of user and movie).
    """
    rng = np.random.default_rng(seed)
    scale = rows / RATINGS
    users, movies = max(50, round(USERS * scale)), max(30, round(MOVIES * min(1.0, scale**0.5)))
    user, movie = pairs(rows, users, movies, rng)
    shuffled = rng.permutation(len(user))
    user, movie = user[shuffled].astype(np.int32), movie[shuffled].astype(np.int32)
    columns = {"user": user, "movie": movie, "month": rng.integers(0, MONTHS, len(user)).astype(np.int32)}
    columns |= {"genre": (movie % GENRES).astype(np.int32), "x": rng.standard_normal(len(user))}
    columns |= responses(columns, users, movies, rng)
    directory.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(np.arange(len(user)), files)):
        pq.write_table(
            pa.table({name: values[part] for name, values in columns.items()}),
            directory / f"part-{number:03d}.parquet",
            row_group_size=1 << 20,
            write_page_checksum=True,
        )
    return len(user)


def write_apart(directory: Path, rows: int = RATINGS) -> None:
    """`write` in a process of its own: what a parent holds counts as peak memory of the processes it starts."""
    program = "import pathlib, sys; from benchmarks import movielens; "
    program += "movielens.write(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", program, str(directory), str(rows)], check=True)


def responses(columns: dict, users: int, movies: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The three responses, simulated from the models that are fitted."""
    user, movie, x = columns["user"], columns["movie"], columns["x"]
    rating = 3.5 + 0.1 * x + SD_RESIDUAL * rng.standard_normal(len(user))
    rating += (SD_USER * rng.standard_normal(users))[user] + (SD_MOVIE * rng.standard_normal(movies))[movie]
    rating += (0.15 * rng.standard_normal(GENRES))[columns["genre"]]
    rating += (0.1 * rng.standard_normal(MONTHS))[columns["month"]]
    sloped = rating + (0.2 * rng.standard_normal(users))[user] * x
    eta = 0.3 + 0.2 * x + (0.8 * rng.standard_normal(users))[user] + (0.7 * rng.standard_normal(movies))[movie]
    liked = (rng.random(len(user)) < 1.0 / (1.0 + np.exp(-eta))).astype(np.int8)
    return {"rating": rating, "sloped": sloped, "liked": liked}
