"""TinyMLPerf: a competition whose scores are computed anew from what was submitted. Not affiliated with MLCommons."""
