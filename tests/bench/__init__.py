"""Side-by-side measurements, run by `make bench`; pytest does not collect them."""
