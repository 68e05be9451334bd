"""Networks in numbers of few bits: what they can say, how their scale is chosen, and how they are computed with."""
