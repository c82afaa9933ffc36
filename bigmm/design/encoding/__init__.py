"""From the rows of a partition to numbers: the columns of a design, level numbers, and which rows count."""
