"""Formulas that several tests of the command line fit."""

SLEEP = "Reaction ~ Days + (Days | Subject)"
