"""Generalized models of a yes-or-no answer: the Laplace approximation, and a better integral for one factor.

python examples/yes_or_no.py
"""

import bigmm
from bigmm.datasets import insteval

data = insteval().head(10_000)
data = data.assign(high=(data.y >= 4).astype(int))  # is a rating 4 or 5?

crossed = bigmm.glmm("high ~ service + (1 | s) + (1 | d)", data, family="bernoulli")
print(crossed.summary())

# with one grouping factor the integral over each level can be as exact as one likes
for points in (1, 9):
    m = bigmm.glmm("high ~ service + (1 | d)", data, family="bernoulli", nagq=points)
    print(f"{points} quadrature points: log-likelihood {m.logLik():.3f}, standard deviation {m.theta[0]:.4f}")
