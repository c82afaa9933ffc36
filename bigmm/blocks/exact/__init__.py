"""The exact solver: elimination level by level, a dense tail factored by LAPACK, inverse and solves of that factor."""
