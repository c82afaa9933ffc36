"""A linear mixed model with a random slope: fit, questions to the fit, prediction, saving.

python examples/sleepstudy.py
"""

import tempfile

import pandas as pd

import bigmm
from bigmm.datasets import sleepstudy

data = sleepstudy()  # reaction times of 18 subjects over ten days with little sleep

full = bigmm.lmm("Reaction ~ Days + (Days | Subject)", data)
print(full.summary())

# do intercepts and slopes of subjects vary together? Both fits by maximum likelihood
correlated = bigmm.lmm("Reaction ~ Days + (Days | Subject)", data, reml=False)
independent = bigmm.lmm("Reaction ~ Days + (Days || Subject)", data, reml=False)
print(bigmm.lrt(independent, correlated))

# how far a subject is from the average: conditional modes with their standard deviations
print(full.ranef(condvar=True)["Subject"].head(3))

# a subject that the model has met, and one that it has not
new = pd.DataFrame({"Days": [10, 10], "Subject": ["308", "a new one"]})
print(full.predict(new, new_levels="population"))

with tempfile.TemporaryDirectory() as folder:
    full.save(f"{folder}/sleepstudy")
    again = bigmm.load(f"{folder}/sleepstudy")
print("the saved fit has the same criterion:", again.objective == full.objective)
