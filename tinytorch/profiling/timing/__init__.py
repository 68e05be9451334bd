"""How long something takes, and which of two things takes longer: a clock, samples, and what may be said of them."""
