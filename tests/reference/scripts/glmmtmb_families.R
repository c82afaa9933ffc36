# Fits of families that lme4 does not have, by glmmTMB, for tests/test_reference_glmmtmb.py.
#
#   Rscript tests/reference/scripts/glmmtmb_families.R tests/reference/reference_glmmtmb.json
#
# Data are drawn here, rounded to a few digits, and written with the numbers of the fits.
suppressMessages({library(glmmTMB); library(jsonlite)})
RNGversion("4.0.0")
set.seed(20261129)

tight <- glmmTMBControl(optCtrl = list(iter.max = 1e4, eval.max = 1e4, rel.tol = 1e-15, x.tol = 1e-12))

levels_of <- function(letter, n) sprintf("%s%02d", letter, seq_len(n))

frame <- function(n, ng, nh) {
  g <- sample.int(ng, n, replace = TRUE)
  h <- sample.int(nh, n, replace = TRUE)
  data.frame(x = round(rnorm(n), 3), z = round(runif(n, -1, 1), 3),
             g = levels_of("g", ng)[g], h = levels_of("h", nh)[h],
             k = sprintf("%s%s", levels_of("h", nh)[1 + (g - 1) %% nh], levels_of("g", ng)[g]),
             top = levels_of("h", nh)[1 + (g - 1) %% nh],
             off = round(runif(n, -0.5, 0.8), 3), wt = sample(1:4, n, replace = TRUE),
             gi = g, hi = h)
}

draw_beta <- function(eta, phi, inverse) {
  mu <- inverse(eta)
  y <- rbeta(length(mu), mu * phi, (1 - mu) * phi)
  pmin(pmax(round(y, 5), 1e-5), 1 - 1e-5)
}

draw_truncated <- function(eta) {
  lambda <- exp(eta)
  qpois(runif(length(lambda), exp(-lambda), 1), lambda)
}

data <- list()
d <- frame(360, 24, 10)
b <- rnorm(24, sd = 0.6); s <- rnorm(24, sd = 0.35); v <- rnorm(10, sd = 0.4)
d$y <- draw_beta(-0.4 + 0.7 * d$x + b[d$gi] + s[d$gi] * d$x, 12, plogis)
d$yc <- draw_beta(0.3 - 0.5 * d$x + b[d$gi] + v[d$hi], 7, plogis)
top <- as.integer(factor(d$top))
d$yn <- draw_beta(0.3 - 0.5 * d$x + b[d$gi] + rnorm(10, sd = 0.7)[top], 7, plogis)
d$yp <- draw_beta(0.2 + 0.3 * d$x + 0.5 * b[d$gi], 20, pnorm)
d$yq <- draw_beta(-0.5 + 0.3 * d$x + 0.7 * b[d$gi], 4, function(e) -expm1(-exp(e)))
data$beta <- d
d <- frame(360, 24, 10)
b <- rnorm(24, sd = 0.5); v <- rnorm(10, sd = 0.35); s <- rnorm(24, sd = 0.5)
d$y <- draw_truncated(0.2 + 0.4 * d$x + b[d$gi])
d$yc <- draw_truncated(0.9 + 0.3 * d$z + b[d$gi] + v[d$hi])
d$ys <- draw_truncated(0.6 + 0.3 * d$z + b[d$gi] + s[d$gi] * d$z)
d$yo <- draw_truncated(-0.2 + 0.5 * d$x + b[d$gi] + d$off)
data$truncated_poisson <- d

cases <- list(
  list(id = "beta_slope", data = "beta", family = "beta", link = "logit", formula = y ~ x + (1 + x | g)),
  list(id = "beta_crossed", data = "beta", family = "beta", link = "logit", formula = yc ~ x + (1 | g) + (1 | h)),
  list(id = "beta_nested", data = "beta", family = "beta", link = "logit", formula = yn ~ x + (1 | top / g)),
  list(id = "beta_probit", data = "beta", family = "beta", link = "probit", formula = yp ~ x + (1 | g)),
  list(id = "beta_cloglog", data = "beta", family = "beta", link = "cloglog", formula = yq ~ x + (1 | g)),
  list(id = "beta_weights", data = "beta", family = "beta", link = "logit", formula = y ~ x + z + (1 | g),
       weights = "wt"),
  list(id = "beta_offset", data = "beta", family = "beta", link = "logit", formula = yc ~ x + (1 | g),
       offset = "off"),
  list(id = "truncated_one", data = "truncated_poisson", family = "truncated_poisson", link = "log",
       formula = y ~ x + (1 | g)),
  list(id = "truncated_slope", data = "truncated_poisson", family = "truncated_poisson", link = "log",
       formula = ys ~ z + (1 + z | g)),
  list(id = "truncated_crossed", data = "truncated_poisson", family = "truncated_poisson", link = "log",
       formula = yc ~ z + (1 | g) + (1 | h)),
  list(id = "truncated_offset", data = "truncated_poisson", family = "truncated_poisson", link = "log",
       formula = yo ~ x + (1 | g), offset = "off"),
  list(id = "truncated_weights", data = "truncated_poisson", family = "truncated_poisson", link = "log",
       formula = y ~ x + z + (1 | g), weights = "wt")
)

families <- list(beta = function(link) beta_family(link = link),
                 truncated_poisson = function(link) truncated_poisson(link = link))

fit_case <- function(case) {
  d <- data[[case$data]]
  formula <- case$formula
  if (!is.null(case$offset)) formula <- update(formula, as.formula(paste("~ . + offset(", case$offset, ")")))
  d$case_weights <- if (is.null(case$weights)) rep(1, nrow(d)) else d[[case$weights]]
  m <- glmmTMB(formula, data = d, family = families[[case$family]](case$link), weights = case_weights, control = tight)
  groups <- VarCorr(m)$cond
  coefficient <- fixef(m)$cond
  modes <- lapply(ranef(m)$cond, function(r) lapply(as.list(r), function(column) setNames(as.list(column), rownames(r))))
  rows <- 1:8
  list(id = case$id, data = case$data, family = case$family, link = case$link,
       formula = gsub("\\s+", " ", paste(deparse(case$formula), collapse = " ")),
       weights = case$weights, offset = case$offset,
       expected = list(
         objective = -2 * as.numeric(logLik(m)), npar = attr(logLik(m), "df"),
         fixef = as.list(coefficient), se = as.list(sqrt(diag(vcov(m)$cond))),
         dispersion = sigma(m),
         sd = lapply(groups, function(g) as.list(attr(g, "stddev"))),
         correlation = lapply(groups, function(g) attr(g, "correlation")[lower.tri(attr(g, "correlation"))]),
         ranef = modes,
         rows = list(link = predict(m, type = "link")[rows], response = predict(m, type = "response")[rows],
                     conditional = predict(m, type = "conditional")[rows],
                     pearson = residuals(m, type = "pearson")[rows])))
}

columns <- function(d) as.list(d[, setdiff(names(d), c("gi", "hi"))])
document <- list(
  source = paste0("glmmTMB ", packageVersion("glmmTMB"), ", ", R.version.string),
  data = lapply(data, columns), cases = lapply(cases, fit_case))
print(warnings())
write_json(document, commandArgs(TRUE)[1], digits = 12, auto_unbox = TRUE, null = "null")
