"""A tiled Cholesky factorization of the tail, for machines of which none can hold its Schur complement."""
