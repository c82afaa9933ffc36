"""Inference from blocks: degrees of freedom, tests, marginal means, intervals. No row is read in this room.

Every function takes the criterion of a fit and its optimum; tables are made in `results`.
"""
