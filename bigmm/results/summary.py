"""The printed summary, laid out like lme4's, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigmm.objective.covariances import TermCovariance
from bigmm.results import broom, coefficients, effects, inference
from bigmm.results.estimated import Estimated
from bigmm.results.fitted import FittedModel

MAX_CORRELATIONS = 10
MAX_COEFFICIENTS = 100
SHORTEST_P = 2e-16
MAX_SHARES = 8
MAX_LEVELS = 8
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class SummaryBlock:
    """A headed piece of the summary: a table of ready-made strings (header first) or lines of text."""

    title: str
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()
    left_columns: int = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """`print(model.summary())` for text; notebooks show the HTML tables."""

    heading: tuple[str, ...]
    blocks: tuple[SummaryBlock, ...]

    def __str__(self) -> str:
        parts = ["\n".join(self.heading)] + [_text(block) for block in self.blocks]
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "<br>".join(html.escape(line) for line in self.heading)
        return f"<p>{head}</p>" + "".join(_html(block) for block in self.blocks)


def _text(block: SummaryBlock) -> str:
    lines = [block.title] if block.title else []
    if block.rows:
        widths = [max(len(row[i]) for row in block.rows) for i in range(len(block.rows[0]))]
        for row in block.rows:
            cells = [
                c.ljust(w) if i < block.left_columns else c.rjust(w)
                for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append((" " + " ".join(cells)).rstrip())
    return "\n".join([*lines, *block.lines])


def _html(block: SummaryBlock) -> str:
    title = f"<p><b>{html.escape(block.title)}</b></p>" if block.title else ""
    text = "".join(f"<p>{html.escape(line)}</p>" for line in block.lines)
    if not block.rows:
        return title + text
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in block.rows[1:])
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{text}"


def _digits(values: np.ndarray) -> int:
    """Common decimals: four significant digits for the smallest value, at most nine for the largest (as R prints)."""
    finite = np.abs(values[np.isfinite(values) & (values != 0)])
    if not finite.size:
        return 0
    # Zeros are left out before: they need no digits, and their logarithm is -inf.
    smallest, largest = np.floor(np.log10([finite.min(), finite.max()]))
    return int(np.clip(min(3 - smallest, 8 - largest), 0, 12))


def numbers(values: np.ndarray, decimals: int | None = None) -> list[str]:
    """Fixed-point strings with common decimals; NA for NaN."""
    values = np.asarray(values, dtype=float)
    decimals = _digits(values) if decimals is None else decimals
    # Fixed points of such numbers are wider than a screen.
    if values.size and np.nanmax(np.abs(values), initial=0.0) >= 1e9:
        return ["NA" if np.isnan(v) else f"{v:.5g}" for v in values]
    return ["NA" if np.isnan(v) else f"{v:.{decimals}f}" for v in values]


def p_text(p: float) -> str:
    """A p value in R's manner."""
    if np.isnan(p):
        return "NA"
    if p < SHORTEST_P:
        return "<2e-16"
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.2e}"


def _heading(fitted: FittedModel) -> tuple[str, ...]:
    lines = [
        f"{fitted.title} fit by {fitted.method} (bigmm {fitted.bigmm_version})",
        f"Formula: {fitted.formula}",
        f"   Data: {fitted.data_description}",
    ]
    named = {"Weights": fitted.weights, " Offset": fitted.offset}
    lines += [f"{label}: {column}" for label, column in named.items() if column]
    return tuple(lines + [f"{label}: {text}" for label, text in fitted.remarks])


def criterion_block(fitted: Estimated) -> SummaryBlock:
    """AIC, BIC, log likelihood, criterion and degrees of freedom."""
    info = broom.information(fitted)
    labels = {"AIC": "AIC", "BIC": "BIC", "logLik": "logLik", "deviance": "REML crit." if fitted.reml else "deviance"}
    header = (*labels.values(), "df.resid")
    values = [f"{info[key]:.1f}" for key in labels] + [str(int(info["df.residual"]))]
    return SummaryBlock("", (header, tuple(values)), left_columns=0)


def _random(fitted: FittedModel) -> SummaryBlock:
    """Groups, names, variances, standard deviations, correlations with the earlier covariates of the term.

    A structure with one variance has one line, and one with one correlation parameter says this once, with its name.
    """
    covariances = effects.term_covariances(fitted)
    sigma = fitted.residual_sd
    names = [_row_names(term) for term in fitted.terms]
    shown = [np.diag(cov)[: len(term_names)] for term_names, cov in zip(names, covariances, strict=True)]
    variances = np.concatenate([*shown, [] if sigma is None else [sigma**2]])
    texts = iter(zip(numbers(variances), numbers(np.sqrt(variances)), strict=True))
    correlations = [_correlation_cells(fitted, term, cov) for term, cov in zip(fitted.terms, covariances, strict=True)]
    width = max((len(cells) for rows in correlations for cells in rows), default=0)
    rows = [("Groups", "Name", "Variance", "Std.Dev.", *(("Corr",) if width else ()), *("",) * (width - 1))]
    for term, term_names, correlation in zip(fitted.terms, names, correlations, strict=True):
        for i, (name, cells) in enumerate(zip(term_names, correlation, strict=True)):
            rows.append((term.group if i == 0 else "", name, *next(texts), *cells, *("",) * (width - len(cells))))
    if sigma is not None:
        rows.append(("Residual", "", *next(texts), *("",) * width))
    groups = "; ".join(f"{name}, {count:,}" for name, count in effects.n_groups(fitted).items())
    return SummaryBlock(
        "Random effects:", tuple(rows), (f"Number of obs: {fitted.nobs:,}, groups: {groups}",), left_columns=2
    )


def _row_names(term: TermCovariance) -> tuple[str, ...]:
    """Names of the rows of a term: its covariates, or the first and the last where all have one variance."""
    if term.width > 1 and term.covariance.has_one_variance:
        return (f"{term.names[0]} to {term.names[-1]}",)
    return term.names


def _correlation_cells(fitted: FittedModel, term: TermCovariance, cov: np.ndarray) -> list[list[str]]:
    """Per row of a term the texts of its correlations."""
    count, structure = len(_row_names(term)), term.covariance
    rho = structure.correlation(fitted.theta[term.part])
    if rho is not None:
        return [[f"{_two(rho)} ({structure.name})"], *([] for _ in range(count - 1))]
    corr = _correlation(cov)
    return [[_two(corr[i, j]) for j in range(i)] if structure.is_correlated else [] for i in range(count)]


def _correlation(cov: np.ndarray) -> np.ndarray:
    sd = np.sqrt(np.diag(cov))
    with np.errstate(invalid="ignore", divide="ignore"):
        return cov / np.outer(sd, sd)


def _two(value: float) -> str:
    return "NaN" if np.isnan(value) else f"{value:.2f}"


def fixed_block(fitted: Estimated, ddf: Any = "auto") -> SummaryBlock:
    """The table of coefficients."""
    table = coefficients.table(fitted, ddf)
    # Estimate and standard error share their decimals, as in R's coefficient tables.
    estimates = np.concatenate([table["Estimate"], table["Std. Error"]])
    decimals = _digits(estimates)
    columns = [
        numbers(table["Estimate"].to_numpy(), decimals),
        numbers(table["Std. Error"].to_numpy(), decimals),
        *([numbers(table["df"].to_numpy(), 1)] if "df" in table else []),
        numbers(table[fitted.statistic].to_numpy(), 3),
        [p_text(p) for p in table.iloc[:, -1]],
    ]
    rows = [("", *table.columns)]
    rows += [(str(name), *cells) for name, *cells in zip(table.index, *columns, strict=True)]
    more = len(rows) - 1 - MAX_COEFFICIENTS
    lines: tuple[str, ...] = (f" ... and {more:,} more coefficients: see params, tidy()",) if more > 0 else ()
    lines += inference.method_notes(fitted, ddf)
    return SummaryBlock("Fixed effects:", tuple(rows[: MAX_COEFFICIENTS + 1]), lines + fitted.table_notes)


def _correlations(fitted: FittedModel) -> SummaryBlock | None:
    # A larger triangle is wider than a screen; lme4 leaves it out above 20 coefficients.
    if not 1 < fitted.rank <= MAX_CORRELATIONS:
        return None
    corr = coefficients.correlations(fitted)
    values = corr.to_numpy()
    short = [str(name)[:6] for name in corr.index]
    rows = [("", *short[:-1])]
    for i in range(1, len(short)):
        cells = [f"{values[i, j]:.3f}" for j in range(i)] + [""] * (len(short) - 1 - i)
        rows.append((str(corr.index[i]), *cells))
    return SummaryBlock("Correlation of fixed effects:", tuple(rows))


def lost_note(fitted: Estimated) -> list[str]:
    """A line about columns without a coefficient, where there are any."""
    lost = fitted.lost_names
    return [f"columns dropped because they depend on earlier ones: {', '.join(lost)}"] if lost else []


def levels_note(name: str, labels: Sequence[str]) -> str:
    """A line about levels of a factor that no row of the fit has."""
    shown = ", ".join(labels[:MAX_LEVELS]) + (", ..." if len(labels) > MAX_LEVELS else "")
    if len(labels) == 1:
        return f"level {shown} of {name} has no complete row and was dropped"
    return f"{len(labels):,} levels of {name} have no complete row and were dropped: {shown}"


def notes(fitted: FittedModel) -> list[str]:
    """What a user should know: dropped rows and columns, singular or uncertified fits, passes and seconds."""
    lines = []
    dropped = [(column, count) for column, count in fitted.dropped if count]
    if dropped:
        total = sum(count for _, count in dropped)
        detail = ", ".join(f"{count:,} ({column})" for column, count in dropped)
        lines.append(f"{total:,} of {fitted.rows_read:,} rows dropped for missing values or zero weights: {detail}")
    lines += [levels_note(name, labels) for name, labels in fitted.spec.lost.items()]
    if fitted.inventory is not None:
        lines += fitted.inventory.sentences()
    lines += lost_note(fitted)
    if fitted.is_singular:
        lines.append("boundary (singular) fit: a variance is zero or a correlation is 1; consider a simpler model")
    if not fitted.outcome.converged:
        lines.append(f"NOT certified as converged ({fitted.outcome.status})")
    if fitted.outcome.advice:
        lines.append(str(fitted.outcome.advice))
    lines += fitted.facts
    if fitted.monte_carlo_error:
        lines.append(_probes(fitted.monte_carlo_error))
    return [*lines, _effort(fitted)]


def _probes(error: Mapping[str, Any]) -> str:
    """What the iterative solver's probes were, and what they leave uncertain beside the data."""
    text = f"iterative solver with {error.get('probes')} probes, {error.get('deflation')} deflation vectors"
    text += f" (seed {error.get('seed')}): Monte Carlo error of the objective {error['objective']:.2g}"
    pairs = zip(error.get("theta", ()), error.get("theta_statistical", ()), strict=True)
    shares = [f"{moved / max(statistical, TINY):.2%}" for moved, statistical in pairs]
    if len(shares) > MAX_SHARES:
        shares = [f"at most {max(shares, key=lambda share: float(share[:-1]))}"]
    return text + (f", of theta {', '.join(shares)} of its standard error" if shares else "")


def _effort(fitted: FittedModel) -> str:
    # The total is measured by itself, since phases do not cover every moment.
    phases = {phase: s for phase, s in fitted.seconds.items() if phase != "total"}
    total = fitted.seconds.get("total", sum(phases.values()))
    detail = ", ".join(f"{phase} {s:.2f}" for phase, s in phases.items())
    passes = "1 pass" if fitted.passes == 1 else f"{fitted.passes} passes"
    return f"{passes} over {fitted.rows_read:,} rows, {total:.2f} s ({detail}), solver {fitted.solver}"


def summarize(fitted: FittedModel, ddf: Any = "auto") -> Summary:
    """The summary of a fit."""
    blocks = [criterion_block(fitted), _random(fitted), fixed_block(fitted, ddf), _correlations(fitted)]
    noted = SummaryBlock("Notes:", lines=tuple(f" - {line}" for line in notes(fitted)))
    return Summary(_heading(fitted), tuple(b for b in [*blocks, noted] if b is not None))


def headline(fitted: Estimated) -> str:
    """One line for repr(): what was fitted to how many rows, and the criterion."""
    criterion = "REML criterion" if fitted.reml else "-2 log likelihood"
    return f"{fitted.origin}, {criterion} {fitted.estimates.objective:.4f}"
