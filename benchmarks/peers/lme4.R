# Rscript lme4.R data.csv formula factor,factor,... repeats
# Fits by maximum likelihood with lme4's defaults; prints key=value lines. Only lmer() is timed, not reading the data.
argument <- commandArgs(trailingOnly = TRUE)
if (!requireNamespace("lme4", quietly = TRUE)) {
  cat("missing=1\n")
  quit(status = 0)
}
suppressPackageStartupMessages(library(lme4))
data <- read.csv(argument[1])
for (name in strsplit(argument[3], ",")[[1]]) data[[name]] <- factor(data[[name]])
formula <- as.formula(argument[2])
seconds <- Inf
for (i in seq_len(as.integer(argument[4]))) {
  gc()
  seconds <- min(seconds, system.time(fit <- lmer(formula, data, REML = FALSE))[["elapsed"]])
}
show <- function(x) paste(format(unname(x), digits = 15, trim = TRUE), collapse = ",")
components <- as.data.frame(VarCorr(fit))
components <- components[is.na(components$var2), ]
names <- ifelse(is.na(components$var1), components$grp, paste(components$grp, components$var1))
cat("version=", as.character(packageVersion("lme4")), "\n", sep = "")
cat("blas=", normalizePath(extSoftVersion()[["BLAS"]], mustWork = FALSE), "\n", sep = "")
cat("seconds=", show(seconds), "\n", sep = "")
cat("llf=", show(as.numeric(logLik(fit))), "\n", sep = "")
cat("fixed=", show(fixef(fit)), "\n", sep = "")
cat("names=", paste(names, collapse = ","), "\n", sep = "")
cat("sds=", show(components$sdcor), "\n", sep = "")
