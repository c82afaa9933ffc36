# Rscript glmm.R data.csv formula factor,factor,... program nAGQ
# Fits a Bernoulli model with a logit link by lme4::glmer (its defaults) or glmmTMB; prints key=value lines. Only the fit is
# timed, not reading the data.
argument <- commandArgs(trailingOnly = TRUE)
program <- argument[4]
package <- if (program == "glmer") "lme4" else program
if (!requireNamespace(package, quietly = TRUE)) {
  cat("missing=1\n")
  quit(status = 0)
}
suppressPackageStartupMessages(library(package, character.only = TRUE))
data <- if (requireNamespace("data.table", quietly = TRUE)) {
  as.data.frame(data.table::fread(argument[1]))
} else {
  read.csv(argument[1])
}
for (name in strsplit(argument[3], ",")[[1]]) data[[name]] <- factor(data[[name]])
formula <- as.formula(argument[2])
gc()
seconds <- system.time(
  fit <- if (program == "glmer") {
    glmer(formula, data, family = binomial, nAGQ = as.integer(argument[5]))
  } else {
    glmmTMB(formula, data, family = binomial)
  }
)[["elapsed"]]
show <- function(x) paste(format(unname(x), digits = 15, trim = TRUE), collapse = ",")
fixed <- if (program == "glmer") fixef(fit) else fixef(fit)$cond
sds <- if (program == "glmer") {
  as.data.frame(VarCorr(fit))$sdcor
} else {
  sapply(VarCorr(fit)$cond, function(x) attr(x, "stddev")[1])
}
cat("version=", as.character(packageVersion(package)), "\n", sep = "")
cat("seconds=", show(seconds), "\n", sep = "")
cat("llf=", show(as.numeric(logLik(fit))), "\n", sep = "")
cat("fixed=", show(fixed), "\n", sep = "")
cat("sds=", show(sds), "\n", sep = "")
