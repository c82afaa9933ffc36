"""The families by name and by number, read off `families.NAMES`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from bigmm.families import NAMES
from bigmm.families.distribution import Distribution

FAMILIES: dict[str, Distribution] = {name: import_module(f"bigmm.families.{name}").DISTRIBUTION for name in NAMES}
"""In the order of their numbers."""


@dataclass(frozen=True, slots=True)
class Family:
    """A response distribution and its link.

    Attributes
    ----------
    name, link : names of the distribution and of the link.
    family_id, link_id : the numbers that kernels branch on.
    has_dispersion : whether a parameter phi is estimated beside the mean.
    canonical : whether expected and observed weights agree for every eta, so that both Laplace criteria do.
    """

    name: str
    link: str
    family_id: int
    link_id: int
    has_dispersion: bool
    canonical: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.link} link)"

    # By name and not as a field: a family travels to workers, and compiled functions should not.
    @property
    def distribution(self) -> Distribution:
        """The record of the distribution."""
        return FAMILIES[self.name]
