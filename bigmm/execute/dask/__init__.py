"""The executor on a `distributed` cluster. No other room of the package talks to Dask's scheduler."""
