"""Where the time goes: what ran, when and within what, added up, drawn, compared and exported."""
