import hypothesis

collect_ignore = ["bench"]  # measurements, run by `make bench`

# Two cores shared with others make any one example slow now and then.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")
