"""Keep the linear mixed models of a full reference folder, and of their values what the tests read.

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
ABOUT = ("id", "data", "formula", "REML", "weights", "offset", "source", "tags", "notes", "compare_only")


def is_linear(case):
    return case["family"] == "gaussian" and case["nAGQ"] is None and case["link"] in (None, "identity")


def trimmed(case):
    expected = {key: case["expected"][key] for key in KEPT if key in case["expected"]}
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


def main(full, destination):
    document = json.loads((full / "reference.json").read_text())
    cases = [trimmed(case) for case in document["cases"] if is_linear(case)]
    used = sorted({case["data"] for case in cases})
    known = {case["id"] for case in cases}
    described = ("file", "nrow", "origin", "description", "columns")
    trimmed_document = {
        "set": "linear mixed models",
        "description": "Trimmed by scripts/trim.py from the full set of reference fits; see README.md beside this file.",
        "software": document["software"],
        "datasets": {name: {key: document["datasets"][name][key] for key in described} for name in used},
        "cases": cases,
        "lrt": [test for test in document["lrt"] if {test["small"], test["big"]} <= known],
    }
    (destination / "data").mkdir(parents=True, exist_ok=True)
    (destination / "reference.json").write_text(lines(trimmed_document))
    for name in used:
        shutil.copyfile(full / "data" / f"{name}.parquet", destination / "data" / f"{name}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
