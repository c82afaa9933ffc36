## glmmTMB's fits of terms with the structures cs and ar1, as digits for tests/test_reference_structures.py.
## Usage: Rscript glmmtmb_structures.R DIRECTORY   writes reference_glmmtmb_structures.json and data/structures.csv
suppressPackageStartupMessages({ library(glmmTMB); library(jsonlite) })
directory <- commandArgs(TRUE)[1]
set.seed(20240611)

root_of <- function(sd, cor) t(chol(diag(sd) %*% cor %*% diag(sd)))
cs <- function(k, rho) { m <- matrix(rho, k, k); diag(m) <- 1; m }
ar1 <- function(k, rho) rho^abs(outer(seq_len(k), seq_len(k), "-"))

## rows of 40 groups g, each with several rows at each level of f (4) and t (5); h is crossed, s nests g
n <- 1200
d <- data.frame(
  g = sample(40, n, TRUE), h = sample(12, n, TRUE), f = sample(4, n, TRUE), t = sample(5, n, TRUE), x = round(rnorm(n), 3)
)
bf <- matrix(rnorm(40 * 4), 40) %*% t(root_of(c(0.6, 0.9, 1.2, 0.8), cs(4, 0.5)))
bt <- matrix(rnorm(40 * 5), 40) %*% t(root_of(rep(0.8, 5), ar1(5, 0.7)))
bh <- rnorm(12, sd = 0.5); bs <- c(-1.1, 0.7, 0.2, -0.6, 0.9)
d$s <- (d$g - 1) %/% 8 + 1
eta_f <- bf[cbind(d$g, d$f)]; eta_t <- bt[cbind(d$g, d$t)] + bs[d$s]
d$y <- round(2 + 0.5 * d$x + eta_f + bh[d$h] + rnorm(n), 4)
d$v <- round(1 - 0.3 * d$x + eta_t + bh[d$h] + rnorm(n), 4)
d$count <- rpois(n, exp(0.4 + 0.3 * d$x + 0.6 * eta_f))
d$events <- rpois(n, exp(0.6 + 0.2 * d$x + 0.5 * eta_t + 0.4 * bh[d$h]))
d$success <- rbinom(n, 1, plogis(0.3 + 0.5 * d$x + 1.1 * eta_f))
d$passed <- rbinom(n, 1, plogis(-0.2 + 0.4 * d$x + 0.9 * eta_t))
d$g <- paste0("g", sprintf("%02d", d$g)); d$h <- paste0("h", sprintf("%02d", d$h)); d$s <- paste0("s", d$s)
d$f <- letters[d$f]; d$t <- paste0("t", d$t)
dir.create(file.path(directory, "data"), showWarnings = FALSE)
write.csv(d, file.path(directory, "data", "structures.csv"), row.names = FALSE, quote = FALSE)
for (name in c("g", "h", "f", "t", "s")) d[[name]] <- factor(d[[name]])

tight <- glmmTMBControl(
  optCtrl = list(iter.max = 2000, eval.max = 4000, rel.tol = 1e-15, x.tol = 1e-12), profile = FALSE
)

## nlminb stops where values no longer change: Newton steps on the exact gradient take the last digits
polished <- function(fit) {
  objective <- fit$obj; theta <- fit$fit$par
  for (step in 1:4) {
    gradient <- as.vector(objective$gr(theta)); hessian <- optimHess(theta, objective$fn, objective$gr)
    trial <- theta - solve(hessian, gradient)
    if (max(abs(objective$gr(trial))) >= max(abs(gradient))) break
    theta <- trial
  }
  fit$fit$par <- theta; fit$fit$objective <- objective$fn(theta)
  ## of a linear model the covariance of beta is that at the estimate of the covariance parameters, as lme4 has it
  fit$sdr <- TMB::sdreport(objective, par.fixed = theta, ignore.parm.uncertainty = fit$modelInfo$REML)
  if (fit$modelInfo$family$family == "gaussian" && !fit$modelInfo$REML) {
    beta <- names(theta) == "beta"
    fit$sdr$cov.fixed[beta, beta] <- solve(optimHess(theta, objective$fn, objective$gr)[beta, beta])
  }
  fit
}

one <- function(formula, family, reml) {
  first <- glmmTMB(as.formula(formula), d, family = family, REML = reml, control = tight)
  objective <- first$obj
  fit <- polished(first)
  invisible(objective$fn(fit$fit$par))
  report <- objective$report(objective$env$last.par)
  terms <- lapply(seq_along(report$sd), function(i) {
    list(sd = I(as.numeric(report$sd[[i]])), correlation = unname(apply(as.matrix(report$corr[[i]]), 1, as.list)))
  })
  names(terms) <- names(first$modelInfo$reStruc$condReStruc)
  beta <- if (reml) fit$sdr$par.random else fit$fit$par
  beta <- beta[names(beta) == "beta"]
  se <- if (reml) sqrt(fit$sdr$diag.cov.random[names(fit$sdr$par.random) == "beta"]) else
    sqrt(diag(fit$sdr$cov.fixed)[names(fit$fit$par) == "beta"])
  variance <- sum(fit$fit$par[names(fit$fit$par) %in% c("betad", "betadisp")])  # its logarithm
  sigma <- if (family$family == "gaussian") exp(0.5 * variance) else NULL
  list(
    formula = formula, family = family$family, reml = reml, deviance = 2 * fit$fit$objective,
    fixef = I(unname(beta)), se = I(unname(se)), terms = terms, sigma = sigma,
    gradient = max(abs(objective$gr(fit$fit$par)))
  )
}

cases <- list(
  list("y ~ x + cs(0 + f | g)", gaussian()), list("y ~ x + cs(0 + f | g) + (1 | h)", gaussian()),
  list("y ~ x + f + cs(0 + f | g)", gaussian()), list("y ~ x + diag(0 + f | g)", gaussian()),
  list("v ~ x + ar1(0 + t | g)", gaussian()), list("v ~ x + ar1(0 + t | g) + (1 | h)", gaussian()),
  list("v ~ x + ar1(0 + t | g) + (1 | s)", gaussian()),
  list("count ~ x + cs(0 + f | g)", poisson()), list("events ~ x + ar1(0 + t | g)", poisson()),
  list("events ~ x + ar1(0 + t | g) + (1 | h)", poisson()), list("events ~ x + ar1(0 + t | g) + (1 | s)", poisson()),
  list("success ~ x + cs(0 + f | g)", binomial()), list("passed ~ x + ar1(0 + t | g)", binomial())
)
out <- list()
for (case in cases) {
  for (reml in if (case[[2]]$family == "gaussian") c(FALSE, TRUE) else FALSE) {
    found <- one(case[[1]], case[[2]], reml)
    message(case[[1]], if (reml) " REML" else " ML", " ", format(found$deviance, digits = 12), " gradient ", found$gradient)
    out[[length(out) + 1]] <- found
  }
}
body <- list(source = paste("glmmTMB", packageVersion("glmmTMB"), "of", R.version.string), cases = out)
writeLines(toJSON(body, auto_unbox = TRUE, digits = I(15), pretty = 1, null = "null"),
           file.path(directory, "reference_glmmtmb_structures.json"))
