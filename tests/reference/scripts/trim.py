"""Keep of a full reference folder's values what the tests read: linear models and generalized ones apart.

usage: python trim.py FULL_DIR DEST_DIR
"""

import json
import shutil
import sys
from pathlib import Path

KEPT = (
    "logLik objective npar AIC BIC theta theta_names theta_unique sigma fixef fixef_names se vcov_beta dropped_columns varcorr "
    "ranef_sample condvar_sample fitted_sample resid_sample fitted_sum resid_ss_response nobs ngroups df_resid is_singular devcomp "
    "objective_at predict_newdata hat_trace"
).split()
KEPT_GENERALIZED = (
    "logLik objective npar AIC BIC theta theta_names theta_unique sigma fixef fixef_names se se_rx varcorr ranef_sample "
    "condvar_sample fitted_sample resid_sample fitted_sum resid_ss_response nobs ngroups df_resid is_singular devcomp "
    "saturated_constant objective_full objective_at predict_newdata crosscheck nb_theta exact_marginal_logLik_at_estimates"
).split()
ABOUT = ("id", "data", "formula", "REML", "weights", "offset", "source", "tags", "notes", "compare_only")


def is_linear(case):
    return case["family"] == "gaussian" and case["nAGQ"] is None and case["link"] in (None, "identity")


def trimmed(case, kept=KEPT):
    expected = {key: case["expected"][key] for key in kept if key in case["expected"]}
    if "hat" in case["expected"]:
        expected["hat"] = {key: value for key, value in case["expected"]["hat"].items() if key.startswith("trace")}
    return {key: case[key] for key in ABOUT if key in case} | {"expected": expected}


def lines(document):
    """One line a case: a readable diff without a megabyte of indentation."""
    members = []
    for key, value in document.items():
        if key == "datasets":
            text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n}"
        elif key in ("cases", "lrt"):
            text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
        else:
            text = json.dumps(value)
        members.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(members) + "\n}\n"


def trimmed_generalized(case):
    return {"family": case["family"], "link": case["link"], "nAGQ": case["nAGQ"]} | trimmed(case, KEPT_GENERALIZED)


def main(full, destination):
    document = json.loads((full / "reference.json").read_text())
    linear = [trimmed(case) for case in document["cases"] if is_linear(case)]
    generalized = [trimmed_generalized(case) for case in document["cases"] if not is_linear(case)]
    write(full, destination, document, "linear mixed models", "reference.json", linear)
    write(full, destination, document, "generalized linear mixed models", "reference_glmm.json", generalized)


def write(full, destination, document, title, file, cases):
    used = sorted({case["data"] for case in cases})
    known = {case["id"] for case in cases}
    described = ("file", "nrow", "origin", "description", "columns")
    trimmed_document = {
        "set": title,
        "description": "Trimmed by scripts/trim.py from the full set of reference fits; see README.md beside this file.",
        "software": document["software"],
        "datasets": {name: {key: document["datasets"][name][key] for key in described} for name in used},
        "cases": cases,
        "lrt": [test for test in document["lrt"] if {test["small"], test["big"]} <= known],
    }
    (destination / "data").mkdir(parents=True, exist_ok=True)
    (destination / file).write_text(lines(trimmed_document))
    for name in used:
        shutil.copyfile(full / "data" / f"{name}.parquet", destination / "data" / f"{name}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
